//! The contract on a Redis Cluster, where each sale has its slot.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use flashsale_core::{
    clock::Timestamp,
    conformance::Harness,
    ports::{Inventory, OperatorLog, OrderQueue, OrderStore},
};
use tempfile::TempDir;

use crate::support::{Bench, Services, Site};

/// A cluster of one node, which has all slots.
struct Node {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // Its nodes talk to each other 10,000 ports further up.
        let port = loop {
            let port =
                TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
            if port < 50_000 {
                break port;
            }
        };
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        let say = |words: &[&str]| {
            let said = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output();
            String::from_utf8(said.expect("redis-cli is installed").stdout).expect("text")
        };
        say(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        while !say(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, _dir: dir }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The profile on a cluster of its own.
struct Clustered {
    bench: Bench,
    node: Arc<Node>,
}

#[async_trait]
impl Harness for Clustered {
    async fn start() -> Self {
        let node = Arc::new(Node::start());
        let services =
            Services { redis_url: format!("redis://127.0.0.1:{}", node.port), ..Services::shared() };
        let bench = Bench::on(Arc::new(Site::new(services).await)).await;
        Self { bench, node }
    }

    async fn crash(self) -> Self {
        Self { bench: self.bench.crash().await, node: self.node }
    }

    fn inventory(&self) -> Arc<dyn Inventory> {
        self.bench.inventory()
    }

    fn queue(&self) -> Arc<dyn OrderQueue> {
        self.bench.queue()
    }

    fn store(&self) -> Arc<dyn OrderStore> {
        self.bench.store()
    }

    fn operator_log(&self) -> Arc<dyn OperatorLog> {
        self.bench.operator_log()
    }

    fn now(&self) -> Timestamp {
        self.bench.now()
    }
}

flashsale_core::conformance_tests!(Clustered);

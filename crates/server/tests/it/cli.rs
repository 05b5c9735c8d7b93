//! The command line, as a person or a script uses it.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Ended, Server, TOKEN, flashsale, run};

fn tell(arguments: &[&str]) -> Ended {
    let mut command = flashsale();
    command.args(arguments);
    run(command)
}

fn tell_at(data_dir: &Path, arguments: &[&str]) -> Ended {
    let mut command = flashsale();
    command.args(arguments).arg("--data-dir").arg(data_dir);
    run(command)
}

impl Ended {
    /// What it printed, since it went well.
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// What it complained of, since it did not go well.
    fn bad(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.err.contains("error: "), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self.err
    }

    fn json(self) -> Value {
        let text = self.good();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

fn ledger(data_dir: &Path) -> Connection {
    Connection::open(data_dir.join("flashsale.db")).expect("there is a ledger")
}

// ── Help, and what is no command ─────────────────────────────────────────────────────────────────────────

/// Flags that say what a command shall do this time; all others are settings, and have a variable.
const OPERANDS: [&str; 19] = [
    "help",
    "version",
    "sale",
    "json",
    "rate",
    "duration",
    "connections",
    "users",
    "user-prefix",
    "timeout",
    "id",
    "name",
    "stock",
    "starts",
    "description",
    "image-url",
    "price",
    "currency",
    "ends",
];

/// The flags of a help text, each with what is said of it.
fn flags(help: &str) -> Vec<(String, String)> {
    let mut flags: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        let line = line.trim_start();
        let long = line.split_once(", ").filter(|_| line.starts_with('-')).map_or(line, |(_, long)| long);
        if let Some(rest) = long.strip_prefix("--").filter(|_| line.starts_with('-')) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            flags.push((name, line.to_owned()));
        } else if let Some((_, text)) = flags.last_mut() {
            text.push('\n');
            text.push_str(line);
        }
    }
    flags
}

#[test]
fn help_names_every_flag_with_its_variable() {
    let all = "config data-dir log log-format help version";
    let http = "listen admin-token cors-origins theme embed-origins max-connections max-viewers header-timeout body-timeout write-timeout drain-timeout";
    let services = "database-url redis-url amqp-url namespace ack allow-volatile-redis sold-out-latch \
                    database-connections audit-spool-mib";
    let stand = format!("profile {services}");
    let serving = format!("demo {http} {stand}");
    let api = format!("{http} {services}");
    let at = format!("url admin-token {stand}");
    let and = |own: &str, more: &str| format!("{own} {more}");
    for (command, own) in [
        (&[][..], String::new()),
        (&["serve"], serving.clone()),
        (&["api"], api),
        (&["worker"], services.to_owned()),
        (&["doctor"], serving),
        (&["migrate"], stand.clone()),
        (&["openapi"], String::new()),
        (&["config"], String::new()),
        (&["seed"], at.clone()),
        (&["reset"], and("sale", &at)),
        (&["verify"], and("sale json", &stand)),
        (&["stress"], "url sale rate duration connections users user-prefix timeout json".to_owned()),
        (&["sales"], at.clone()),
        (&["sales", "list"], and("json", &at)),
        (&["sales", "create"], and("id name stock starts ends description image-url price currency", &at)),
        (&["sales", "change"], and("name stock starts ends description image-url price currency", &at)),
        (&["sales", "pause"], at.clone()),
        (&["sales", "resume"], at.clone()),
        (&["sales", "delete"], at),
    ] {
        let help = tell(&[command, &["--help"]].concat()).good();
        let flags = flags(&help);
        let mut found: Vec<_> = flags.iter().map(|(name, _)| name.as_str()).collect();
        let mut expected: Vec<_> = all.split_whitespace().chain(own.split_whitespace()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{command:?}\n{help}");
        for (name, text) in flags.iter().filter(|(name, _)| !OPERANDS.contains(&name.as_str())) {
            let variable = format!("[env: FLASHSALE_{}", name.to_uppercase().replace('-', "_"));
            assert!(text.contains(&variable), "{command:?}: --{name} does not name {variable}\n{help}");
        }
    }
    let help = tell(&["--help"]).good();
    names(
        &help,
        &["serve", "seed", "stress", "verify", "sales", "reset", "doctor", "flashsale serve --demo"],
    );
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(tell(&["--version"]).good(), format!("flashsale {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_no_command_or_flag_is_refused_by_name() {
    names(&tell(&["srve"]).bad(2), &["srve", "serve", "--help"]);
    names(&tell(&["serve", "--lisen", "127.0.0.1:0"]).bad(2), &["--lisen", "--listen"]);
    names(&tell(&["sales", "dance"]).bad(2), &["dance"]);
    names(&tell(&["reset"]).bad(2), &["--sale"]);
    let nothing = tell(&[]);
    assert_eq!(nothing.code, Some(2));
    names(&nothing.err, &["Usage: flashsale", "serve"]);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    // `flashsale openapi | head -1` used to end in a panic and a backtrace.
    for command in [&["openapi"][..], &["config"], &["doctor"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let dir = folder();
        let mut child = flashsale();
        child.args(command).arg("--data-dir").arg(dir.path()).stdout(writer).stderr(Stdio::piped());
        let output = child.output().expect("it runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !err.contains("panicked"), "{command:?}: {err}");
    }
}

// ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────

fn config_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

/// Runs with a config file.
fn told_by(file: &str, arguments: &[&str]) -> Ended {
    let file = config_file(file);
    tell(&[arguments, &["--config", file.path().to_str().expect("a plain path")]].concat())
}

#[test]
fn the_example_file_is_accepted_as_it_is_and_with_every_key_in_force() {
    let example = tell(&["config"]).good();
    let dir = folder();
    let data_dir = dir.path().to_str().expect("a plain path");
    told_by(&example, &["doctor", "--data-dir", data_dir]).good();

    let in_force: String = example
        .lines()
        .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
        .map(|line| format!("{line}\n"))
        .collect();
    for flag in flags(&tell(&["serve", "--help"]).good()) {
        let key = format!("{} = ", flag.0);
        let is_key = !["config", "help", "version"].contains(&flag.0.as_str());
        assert_eq!(in_force.lines().any(|line| line.starts_with(&key)), is_key, "{key} in {in_force}");
    }
    // The example's theme is where its reader has it.
    let theme = dir.path().join("shop.css");
    fs::write(&theme, "").expect("it is written");
    let theme = theme.to_str().expect("a plain path");
    let report = told_by(&in_force, &["doctor", "--data-dir", data_dir, "--theme", theme]).good();
    names(&report, &["127.0.0.1:3000", "admin token: it is given", "✓ theme"]);
}

#[test]
fn a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default() {
    // All of 127/8 is loopback, so each place can name an address of its own.
    let file = config_file("listen = \"127.0.0.2:0\"\ndemo = true\n");
    let serve = |variable: Option<&str>, flag: Option<&str>| {
        let dir = Arc::new(folder());
        let mut command = flashsale();
        command.arg("serve").arg("--data-dir").arg(dir.path()).arg("--config").arg(file.path());
        command.envs(variable.map(|address| ("FLASHSALE_LISTEN", address)));
        command.args(flag.map(|address| format!("--listen={address}")));
        Server::spawn(command, dir)
    };
    let by_file = serve(None, None);
    assert!(by_file.url.starts_with("http://127.0.0.2:"), "{}", by_file.url);
    assert_eq!(by_file.status("sale_1")["remainingStock"], 100, "demo = true is in the file");
    let by_variable = serve(Some("127.0.0.3:0"), None);
    assert!(by_variable.url.starts_with("http://127.0.0.3:"), "{}", by_variable.url);
    let by_flag = serve(Some("127.0.0.3:0"), Some("127.0.0.4:0"));
    assert!(by_flag.url.starts_with("http://127.0.0.4:"), "{}", by_flag.url);
    // Serving there could meet somebody else; the doctor only looks.
    names(&tell_at(folder().path(), &["doctor"]).good(), &["address: 127.0.0.1:3000"]);
}

#[test]
fn the_config_file_may_be_named_by_a_variable() {
    let file = config_file("listen = \"127.0.0.5:0\"\n");
    let mut command = flashsale();
    command.arg("doctor").arg("--data-dir").arg(folder().path()).env("FLASHSALE_CONFIG", file.path());
    names(&run(command).good(), &["address: 127.0.0.5:0"]);
}

#[test]
fn an_error_in_a_setting_names_the_key_the_value_and_what_is_allowed() {
    for (key, variable, value, allowed) in [
        ("listen", "FLASHSALE_LISTEN", "localhost:3000", "127.0.0.1:3000"),
        ("max-connections", "FLASHSALE_MAX_CONNECTIONS", "0", "1..=1000000"),
        ("drain-timeout", "FLASHSALE_DRAIN_TIMEOUT", "2h", "up to 1h"),
        ("header-timeout", "FLASHSALE_HEADER_TIMEOUT", "soon", "10s"),
        ("cors-origins", "FLASHSALE_CORS_ORIGINS", "shop.example", "https://shop.example"),
        ("profile", "FLASHSALE_PROFILE", "clutser", "embedded"),
        ("demo", "FLASHSALE_DEMO", "perhaps", "true"),
        ("log", "FLASHSALE_LOG", "inof", "error, warn, info"),
        ("log-format", "FLASHSALE_LOG_FORMAT", "xml", "json"),
    ] {
        let words = [key, value, allowed];
        names(&tell(&["doctor", &format!("--{key}={value}")]).bad(2), &words);
        let mut by_variable = flashsale();
        by_variable.arg("doctor").env(variable, value);
        names(&run(by_variable).bad(2), &words);
        names(&told_by(&format!("{key} = \"{value}\"\n"), &["doctor"]).bad(1), &words);
    }
    names(&tell(&["doctor", "--config", "/no/such/file"]).bad(1), &["/no/such/file", "No such file"]);
    names(&told_by("listen", &["doctor"]).bad(1), &["not TOML", "line 1"]);
    names(&told_by("listen = { port = 1 }", &["doctor"]).bad(1), &["listen", "must be a text"]);
}

#[test]
fn a_key_that_is_none_is_refused_and_a_variable_that_is_none_is_pointed_out() {
    names(&told_by("listn = \"127.0.0.1:0\"\n", &["doctor"]).bad(1), &["no key listn", "listen"]);
    let mut command = flashsale();
    command.arg("doctor").arg("--data-dir").arg(folder().path()).env("FLASHSALE_LISTN", "127.0.0.1:0");
    let done = run(command);
    names(&done.err, &["WARN", "FLASHSALE_LISTN"]);
    done.good();
}

// ── The ledger and its sales, with and without a server ──────────────────────────────────────────────────

#[test]
fn migrate_makes_the_ledger_and_leaves_one_that_is_there() {
    let dir = folder();
    let data_dir = dir.path().join("made/for/me");
    for _ in 0..2 {
        names(&tell_at(&data_dir, &["migrate"]).good(), &["made/for/me"]);
        let tables: i64 = ledger(&data_dir)
            .query_row(
                "SELECT count(*) FROM sqlite_master WHERE name IN ('sales', 'orders', 'order_audit_trail')",
                [],
                |row| row.get(0),
            )
            .expect("it can be asked");
        assert_eq!(tables, 3);
    }
    assert_eq!(fs::metadata(&data_dir).expect("it is there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn seed_makes_the_three_sales_once() {
    let dir = folder();
    assert_eq!(tell_at(dir.path(), &["seed"]).good(), "Made sale_1, sale_2, sale_3.\n");
    assert_eq!(tell_at(dir.path(), &["seed"]).good(), "The three sales were there already.\n");

    let server = Server::on(Arc::new(dir), &["--demo"]);
    assert_eq!(server.get("/api/v1/sales").json().as_array().expect("an array").len(), 3);
    assert_eq!(tell_at(server.data_dir(), &["seed"]).good(), "The three sales were there already.\n");
    tell_at(server.data_dir(), &["sales", "delete", "sale_3"]).good();
    assert_eq!(tell_at(server.data_dir(), &["seed"]).good(), "Made sale_3.\n");
    assert_eq!(server.status("sale_3")["totalStock"], 200);
}

/// The life of a sale, told by commands on a data folder.
fn life_of_a_sale(data_dir: &Path) {
    let sales = |arguments: &[&str]| tell_at(data_dir, &[&["sales"], arguments].concat());
    let listed = || {
        let list = sales(&["list", "--json"]).json();
        list.as_array().expect("an array").iter().find(|sale| sale["saleId"] == "tickets").cloned()
    };
    let made = sales(&[
        "create",
        "--id",
        "tickets",
        "--name",
        "Tickets, row 1",
        "--stock",
        "7",
        "--starts",
        "2020-01-01T00:00:00Z",
        "--ends",
        "2099-01-01T00:00:00Z",
    ])
    .good();
    names(&made, &["tickets", "Tickets, row 1", "ACTIVE", "7", "2099-01-01T00:00:00.000Z"]);
    let sale = listed().expect("it is listed");
    assert_eq!((&sale["totalStock"], &sale["epoch"], &sale["paused"]), (&json!(7), &json!(1), &json!(false)));

    names(
        &sales(&["change", "tickets", "--stock", "9", "--name", "Rows 1 and 2"]).good(),
        &["Rows 1 and 2", "9"],
    );
    let shown =
        ["--description", "Two\nlines", "--image-url", "/a.png", "--price", "129.9", "--currency", "EUR"];
    sales(&[&["change", "tickets"], &shown[..]].concat()).good();
    let sale = listed().expect("it is listed");
    let product = json!([sale["description"], sale["imageUrl"], sale["price"], sale["currency"]]);
    assert_eq!(product, json!(["Two\nlines", "/a.png", 129.9, "EUR"]));
    sales(&["change", "tickets", "--description", "", "--image-url", "", "--price", ""]).good();
    let sale = listed().expect("it is listed");
    assert!(sale.get("description").is_none() && sale.get("price").is_none(), "{sale}");
    names(&sales(&["change", "tickets", "--price", "5"]).bad(1), &["--currency"]);
    names(&sales(&["pause", "tickets"]).good(), &["ACTIVE, paused"]);
    assert_eq!(listed().expect("it is listed")["paused"], true);
    let resumed = sales(&["resume", "tickets"]).good();
    assert!(resumed.contains("ACTIVE") && !resumed.contains("paused"), "{resumed}");
    assert_eq!(tell_at(data_dir, &["reset", "--sale", "tickets"]).good(), "Sale tickets has been reset.\n");
    assert_eq!(listed().expect("it is listed")["epoch"], 2);
    names(&sales(&["list"]).good(), &["tickets", "Rows 1 and 2", "ACTIVE"]);

    let taken =
        ["--name", "x", "--stock", "1", "--starts", "2020-01-01T00:00:00Z", "--ends", "2099-01-01T00:00:00Z"];
    names(&sales(&[&["create", "--id", "tickets"], &taken[..]].concat()).bad(1), &["tickets"]);
    names(&sales(&[&["create", "--id", "a b"], &taken[..]].concat()).bad(1), &["saleId", "A-Z"]);
    names(&sales(&["change", "tickets", "--ends", "2019-01-01T00:00:00Z"]).bad(1), &["endsAt", "startsAt"]);
    names(&sales(&["change", "tickets", "--ends", "tomorrow"]).bad(2), &["tomorrow", "--ends"]);
    names(&sales(&["change", "tickets"]).bad(1), &["--name", "--stock"]);

    names(&sales(&["delete", "tickets"]).good(), &["tickets is deleted"]);
    assert_eq!(listed(), None);
    for gone in [&["pause", "tickets"][..], &["resume", "tickets"], &["delete", "tickets"]] {
        names(&sales(gone).bad(1), &["There is no sale tickets"]);
    }
    names(&tell_at(data_dir, &["reset", "--sale", "tickets"]).bad(1), &["There is no sale tickets"]);
    names(&tell_at(data_dir, &["reset", "--sale", "a/b"]).bad(1), &["saleId"]);
}

#[test]
fn a_sale_lives_from_create_to_delete_without_a_server() {
    let dir = folder();
    names(&tell_at(dir.path(), &["sales", "list"]).good(), &["no sales yet", "flashsale sales create"]);
    life_of_a_sale(dir.path());
}

#[test]
fn a_sale_lives_from_create_to_delete_through_the_server_that_the_folder_names() {
    let server = Server::demo();
    life_of_a_sale(server.data_dir());
    // It was the server that did it, with the token of the demonstration.
    names(&server.admin("GET", "/api/v1/admin/sales/tickets", &Value::Null).text, &["no sale tickets"]);
    tell_at(server.data_dir(), &["sales", "pause", "sale_1"]).good();
    assert_eq!(server.buy("sale_1", "user123").status, 400);
}

#[test]
fn the_token_that_the_folder_keeps_opens_its_server() {
    let server = Server::start(&[]);
    assert_eq!(server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "sale_1" })).status, 401);
    assert_eq!(tell_at(server.data_dir(), &["seed"]).good(), "Made sale_1, sale_2, sale_3.\n");
    life_of_a_sale(server.data_dir());
}

#[test]
fn a_folder_that_keeps_a_token_can_be_served_as_a_demonstration() {
    // The commands took the folder's token for the only one, and the demonstration refused it.
    let (_, dir) = Server::start(&[]).terminate();
    let server = Server::on(dir, &["--demo"]);
    tell_at(server.data_dir(), &["sales", "pause", "sale_1"]).good();
    assert_eq!(server.status("sale_1")["paused"], true);
}

#[test]
fn a_reset_without_a_server_gives_everything_back() {
    let server = Server::demo();
    server.buy("sale_1", "user123");
    let (_, dir) = server.terminate();
    tell_at(dir.path(), &["reset", "--sale", "sale_1"]).good();
    let server = Server::on(dir, &["--demo"]);
    let status = server.status("sale_1");
    assert_eq!((&status["remainingStock"], &status["epoch"]), (&json!(100), &json!(2)));
    assert_eq!(server.get("/api/v1/sale/sale_1/user/user123").json()["purchased"], false);
    names(&tell_at(server.data_dir(), &["sales", "delete", "sale_2"]).good(), &["sale_2 is deleted"]);
}

#[test]
fn a_wrong_token_and_a_server_that_is_none_are_told_clearly() {
    let server = Server::start(&["--admin-token", "the-right-token-of-this-server"]);
    let url = ["--url", server.url.as_str()];
    let pause =
        |more: &[&str]| tell_at(folder().path(), &[&["sales", "pause", "sale_1"][..], &url, more].concat());
    for token in [&[][..], &["--admin-token", "the-wrong-one"]] {
        let complaint = pause(token).bad(1);
        names(&complaint, &["--admin-token", "401"]);
        assert!(!complaint.contains("the-wrong-one"), "{complaint}");
    }
    // The token is right, and the sale is none.
    names(&pause(&["--admin-token", "the-right-token-of-this-server"]).bad(1), &["There is no sale sale_1"]);
    let mut by_variables = flashsale();
    by_variables.arg("seed").env("FLASHSALE_URL", &server.url);
    by_variables.env("FLASHSALE_ADMIN_TOKEN", "the-right-token-of-this-server");
    assert_eq!(run(by_variables).good(), "Made sale_1, sale_2, sale_3.\n");

    // Nobody listens on port 1, which is reserved.
    let nobody = "http://127.0.0.1:1";
    for command in [&["seed"][..], &["sales", "list"], &["reset", "--sale", "sale_1"], &["stress"]] {
        let complaint = tell(&[command, &["--url", nobody]].concat()).bad(1);
        names(&complaint, &["127.0.0.1:1", "refused"]);
        assert_eq!(complaint.matches("refused").count(), 1, "it is said once: {complaint}");
    }
    for url in ["shop.example", "https://shop.example"] {
        names(&tell(&["seed", "--url", url]).bad(2), &["--url", url, "http://127.0.0.1:3000"]);
    }
}

// ── Load, and whether the promises held ──────────────────────────────────────────────────────────────────

fn stress(server: &Server, arguments: &[&str]) -> Ended {
    tell(&[&["stress", "--url", server.url.as_str()], arguments].concat())
}

#[test]
fn stress_prints_the_seeds_report_and_passes() {
    let server = Server::demo();
    let report = stress(&server, &["--sale", "sale_1", "--rate", "500", "--duration", "1s"]).good();
    // The seed's layout, line by line, with figures that differ from run to run left out.
    let mut rest = report.as_str();
    for line in [
        "================================================================================\n",
        "                    FLASH SALE STRESS TEST RESULTS\n",
        "================================================================================\n",
        "\n📊 REQUEST STATISTICS:\n",
        "   Total Requests: 500\n",
        "   Failed Requests: 0 (0.00%)\n",
        "\n⏱️  RESPONSE TIME:\n",
        "   Average: ",
        "ms\n   Median (p50): ",
        "ms\n   p95: ",
        "ms\n   p99: ",
        "ms\n   Max: ",
        "ms\n\n🛒 PURCHASE RESULTS:\n",
        "   SUCCESS: 100 (20.00%)\n",
        "   ALREADY_PURCHASED: 0 (0.00%)\n",
        "   SOLD_OUT: 400 (80.00%)\n",
        "\n================================================================================\n",
        "PASSED\n",
    ] {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("{line:?} is not next in:\n{report}")).1;
    }
    assert!(rest.is_empty(), "PASSED is the last line:\n{report}");
    for promise in ["P1", "P2", "P3", "P4", "P5"] {
        assert!(report.contains(&format!("✅ {promise} ")), "{report}");
    }
    assert_eq!(server.status("sale_1")["totalSold"], 100);
}

#[test]
fn stress_by_connections_reports_as_json() {
    let server = Server::demo();
    let report = stress(&server, &["--connections", "8", "--duration", "1s", "--json"]).json();
    let figure = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    let total = figure("/totalRequests").expect("a number");
    assert_eq!((&report["saleId"], &report["verdict"]["passed"]), (&json!("sale_1"), &json!(true)));
    assert_eq!((figure("/failedRequests"), figure("/outcomes/success")), (Some(0), Some(100)));
    assert_eq!(figure("/outcomes/soldOut"), Some(total - 100));
    assert_eq!((figure("/before/remainingStock"), figure("/after/remainingStock")), (Some(100), Some(0)));
    for quantile in ["averageMs", "medianMs", "p95Ms", "p99Ms", "p999Ms", "maxMs"] {
        assert!(report["responseTime"][quantile].as_f64().is_some_and(|time| time > 0.0), "{report:#}");
    }
}

#[test]
fn users_that_try_again_are_told_that_they_have_already_purchased() {
    let server = Server::demo();
    let arguments = ["--rate", "500", "--duration", "1s", "--users", "50", "--user-prefix", "fan", "--json"];
    let report = stress(&server, &arguments).json();
    let figure = |name: &str| report["outcomes"][name].as_u64().expect("a number");
    assert_eq!(figure("success") + figure("alreadyPurchased"), 500, "{report:#}");
    assert!((1..=50).contains(&figure("success")), "{report:#}");
    let orders = server.admin("GET", "/api/v1/admin/sales/sale_1/orders", &Value::Null).text;
    assert_eq!(orders.matches("fan").count() as u64, figure("success"), "{orders}");
}

#[test]
fn a_load_that_is_interrupted_reports_what_was_asked_until_then() {
    let server = Server::demo();
    let mut load = flashsale();
    load.args(["stress", "--url", &server.url, "--rate", "200", "--duration", "1h", "--json"]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    server.until("all is sold", |server| server.status("sale_1")["remainingStock"] == 0);
    let told = Command::new("kill").args(["-s", "INT", &load.id().to_string()]).status();
    assert!(told.is_ok_and(|told| told.success()));
    let ended = load.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    let report: Value = serde_json::from_slice(&ended.stdout).expect("a report");
    assert_eq!((&report["interrupted"], &report["verdict"]["passed"]), (&json!(true), &json!(true)));
    assert_eq!(report["outcomes"]["success"], 100, "{report:#}");
}

#[test]
fn stress_says_what_it_cannot_do() {
    let server = Server::demo();
    names(&stress(&server, &["--sale", "sale_9"]).bad(1), &["sale_9"]);
    names(&stress(&server, &["--sale", "a b"]).bad(2), &["a b", "A-Z"]);
    names(&stress(&server, &["--rate", "0"]).bad(2), &["--rate", "above 0"]);
    names(&stress(&server, &["--duration", "5"]).bad(2), &["--duration", "10s"]);
    names(&stress(&server, &["--users", "0"]).bad(1), &["users"]);
}

#[test]
fn load_on_a_sale_that_is_not_open_is_answered_and_no_failure() {
    // The server's 400 was taken for none of its answers, because of the number in its field `status`.
    let server = Server::demo();
    let report = stress(&server, &["--sale", "sale_2", "--rate", "100", "--duration", "1s", "--json"]).json();
    assert_eq!((&report["outcomes"]["notActive"], &report["failedRequests"]), (&json!(100), &json!(0)));
}

#[test]
fn verify_holds_under_load_and_after_it() {
    let server = Server::demo();
    let mut load = flashsale();
    load.args(["stress", "--url", &server.url, "--rate", "500", "--duration", "2s"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut looks = 0;
    while load.try_wait().expect("its state can be asked").is_none() {
        tell_at(server.data_dir(), &["verify"]).good();
        looks += 1;
    }
    assert!(looks > 0 && load.wait().expect("it ended").success());
    server.until("all orders are confirmed", |server| server.status("sale_1")["confirmed"] == 100);
    // Rows of rejections may linger for a moment; an export has them written first.
    server.admin("GET", "/api/v1/admin/sales/sale_1/audit", &Value::Null);

    let all = tell_at(server.data_dir(), &["verify"]).good();
    names(
        &all,
        &["Sale sale_1, epoch 1", "Sale sale_2, epoch 1", "Sale sale_3, epoch 1", "All promises hold."],
    );
    let table = tell_at(server.data_dir(), &["verify", "--sale", "sale_1"]).good();
    names(&table, &["P1", "P2", "P4", "P5", "P6", "P7", "100 ≤ 100", "0 + 0 + 100 = 100", "1000 attempted"]);
    assert!(table.matches('✓').count() == 11 && !table.contains('✗') && !table.contains("sale_2"), "{table}");
    let json = tell_at(server.data_dir(), &["verify", "--sale", "sale_1", "--json"]).json();
    assert_eq!(
        (&json[0]["saleId"], &json[0]["epoch"], &json[0]["holds"]),
        (&json!("sale_1"), &json!(1), &json!(true))
    );
    assert_eq!(json[0]["checks"].as_array().map(Vec::len), Some(11));
    names(&tell_at(server.data_dir(), &["verify", "--sale", "sale_9"]).bad(1), &["There is no sale sale_9"]);

    let (_, dir) = server.terminate();
    assert_eq!(tell_at(dir.path(), &["verify"]).good(), all);
}

#[test]
fn verify_finds_what_was_done_to_the_ledger_and_names_the_promise() {
    let server = Server::demo();
    for user in 0..102 {
        server.buy("sale_1", &format!("user{user}"));
    }
    server.buy("sale_1", "user0");
    let (_, dir) = server.terminate();
    tell_at(dir.path(), &["verify"]).good();

    let free = "DROP INDEX one_live_order_a_user; DROP TRIGGER orders_stay_within_the_stock; \
                DROP TRIGGER orders_keep_their_unit; ";
    let place = "key = (SELECT min(key) FROM trail WHERE kind = ";
    for (promise, check, manipulation) in [
        (
            "P6",
            "every order and its reservation",
            "DELETE FROM live_orders WHERE user_id = 'user7'".to_owned(),
        ),
        ("P6", "every place of the sequence", format!("DELETE FROM trail WHERE {place} 2)")),
        ("P6", "every order and its reservation", format!("DELETE FROM trail WHERE {place} 1)")),
        ("P6", "every confirmation", format!("DELETE FROM trail WHERE {place} 5)")),
        (
            "P6",
            "every confirmation",
            "UPDATE trail SET (order_id, unit, user_id) = (SELECT order_id, unit, user_id FROM trail WHERE kind = 5 ORDER BY key) \
             WHERE key = (SELECT max(key) FROM trail WHERE kind = 5)"
                .to_owned(),
        ),
        (
            "P6",
            "every ending",
            "INSERT INTO ended_orders SELECT (key & ~0xFFFFFFFFFF) + 5000, key & 0xFFFFFFFFFF, place, epoch, 'CANCELLED', \
             reserved_at, confirmed_at, reserved_at, id, user_id FROM live_orders WHERE user_id = 'user4'; \
             DELETE FROM live_orders WHERE user_id = 'user4'"
                .to_owned(),
        ),
        (
            "P6",
            "every order and its reservation",
            format!("{free} UPDATE live_orders SET user_id = 'mallory' WHERE user_id = 'user3'"),
        ),
        (
            "P6",
            "every order and its reservation",
            format!("UPDATE trail SET user_id = 'mallory' WHERE {place} 1)"),
        ),
        ("P6", "every attempt has its outcome", format!("UPDATE trail SET kind = 77 WHERE {place} 2)")),
        ("P1", "the stock is the one on record", "UPDATE sales SET total_stock = total_stock + 1".to_owned()),
        ("P6", "every place of the sequence", "UPDATE sales SET last_place = last_place + 1".to_owned()),
        ("P5", "nobody was told SOLD_OUT", format!("UPDATE trail SET kind = 2 WHERE {place} 1)")),
        (
            "P2",
            "no user holds two",
            format!("{free} UPDATE live_orders SET user_id = 'user1' WHERE user_id = 'user2'"),
        ),
        (
            "P1",
            "none outside the stock",
            format!("{free} UPDATE live_orders SET key = key + 1 WHERE key & 0xFFFF = 100"),
        ),
        (
            "P1",
            "live orders ≤ stock",
            format!(
                "{free} INSERT INTO live_orders SELECT key + 100, place, epoch, confirmed, reserved_at, confirmed_at, \
                 randomblob(16), 'one more' FROM live_orders WHERE key & 0xFFFF = 1"
            ),
        ),
        (
            "P7",
            "no order of another epoch",
            format!("{free} UPDATE live_orders SET epoch = 2 WHERE key & 0xFFFF = 1"),
        ),
    ] {
        let copy = folder();
        fs::copy(dir.path().join("flashsale.db"), copy.path().join("flashsale.db")).expect("it is copied");
        ledger(copy.path())
            .execute_batch(&manipulation)
            .unwrap_or_else(|error| panic!("{manipulation}: {error}"));
        let found = tell_at(copy.path(), &["verify", "--sale", "sale_1"]);
        assert_eq!(found.code, Some(1), "{manipulation}: {found:#?}");
        let broken = |line: &str| line.contains(promise) && line.contains(check) && line.contains("✗ BROKEN");
        assert!(found.out.lines().any(broken), "{manipulation}\n{}", found.out);
        names(&found.out, &["A PROMISE IS BROKEN."]);
        let json = tell_at(copy.path(), &["verify", "--sale", "sale_1", "--json"]);
        assert_eq!(json.code, Some(1));
        let json: Value = serde_json::from_str(&json.out).expect("JSON");
        assert_eq!(json[0]["holds"], false);
    }
    let damage = format!("UPDATE trail SET detail = '{{' WHERE {place} 1)");
    ledger(dir.path()).execute_batch(&damage).expect("damaged");
    let found = tell_at(dir.path(), &["verify"]);
    assert_eq!(found.code, Some(1), "{found:#?}");
    names(&found.err, &["Sale sale_1 cannot be checked"]);
    names(&found.out, &["Sale sale_2", "Sale sale_3"]);
    assert!(!found.out.contains("All promises hold"), "{found:#?}");
}

// ── Doctor, and folders without a ledger ─────────────────────────────────────────────────────────────────

#[test]
fn a_folder_without_a_ledger_is_named_by_verify_and_noted_by_doctor() {
    let dir = folder();
    let missing = dir.path().join("nowhere");
    for place in [dir.path(), &missing] {
        let shown = place.to_str().expect("a plain path");
        names(&tell_at(place, &["verify"]).bad(1), &["no ledger", shown]);
        let report = tell_at(place, &["doctor"]).good();
        names(&report, &["! ledger: there is none yet", "! admin token: the first start makes it", shown]);
    }
    assert!(!missing.exists(), "who only looks makes nothing");
    tell_at(dir.path(), &["migrate"]).good();
    names(&tell_at(dir.path(), &["verify"]).bad(1), &["no sales"]);
}

#[test]
fn doctor_finds_a_healthy_server_healthy_and_an_unreadable_ledger_not() {
    let server = Server::start(&[]);
    tell_at(server.data_dir(), &["seed"]).good();
    let listen = server.url.trim_start_matches("http://");
    let report = tell_at(server.data_dir(), &["doctor", "--listen", listen]).good();
    names(
        &report,
        &["Profile: embedded", "✓ data folder", "✓ ledger", "3 sales", "free space", "open files"],
    );
    names(&report, &[&format!("! address: {listen}"), "a server may be running there", "✓ admin token"]);
    assert!(!report.contains('✗'), "{report}");
    let (_, dir) = server.terminate();

    fs::write(dir.path().join("flashsale.db"), "this is no ledger, however long it may be").expect("written");
    let report = tell_at(dir.path(), &["doctor"]);
    assert_eq!(report.code, Some(1), "{report:#?}");
    names(&report.out, &["✗ ledger", "not a database", "✓ data folder"]);
    let complaint = tell_at(dir.path(), &["seed"]).bad(1);
    names(&complaint, &["flashsale.db", "not a database"]);
    assert_eq!(complaint.matches("not a database").count(), 1, "it is said once: {complaint}");
    names(&tell_at(dir.path(), &["verify"]).bad(1), &["not a database"]);

    let file = dir.path().join("flashsale.db");
    names(&tell_at(&file, &["doctor"]).out, &["✗ data folder", "not a folder"]);
    names(&tell_at(&file, &["seed"]).bad(1), &["cannot make the data folder"]);
}

/// What serves refuses, its doctor has to find, and nothing is said of records that cannot be read.
#[test]
fn doctor_and_verify_refuse_a_ledger_of_another_version() {
    let (_, dir) = Server::demo().terminate();
    let ledger = rusqlite::Connection::open(dir.path().join("flashsale.db")).expect("a ledger");
    let known: i64 = ledger.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
    for (version, advice) in [(known + 1, "use the newer program"), (known - 1, "flashsale migrate")] {
        ledger.pragma_update(None, "user_version", version).expect("it is written");
        let report = tell_at(dir.path(), &["doctor"]);
        assert_eq!(report.code, Some(1), "{report:#?}");
        names(&report.out, &["✗ ledger", &format!("schema version {version}"), advice]);
        let refused = tell_at(dir.path(), &["verify"]).bad(1);
        names(&refused, &[&format!("schema version {version}"), advice]);
    }
}

#[test]
fn doctor_finds_what_the_pages_lack() {
    let dir = folder();
    let missing = tell_at(dir.path(), &["doctor", "--theme", "/no/such/theme.css"]);
    assert_eq!(missing.code, Some(1), "{missing:#?}");
    names(&missing.out, &["✗ theme", "/no/such/theme.css"]);
    let frames = tell_at(dir.path(), &["doctor", "--embed-origins", "none,https://shop.example"]);
    assert_eq!(frames.code, Some(1), "{frames:#?}");
    names(&frames.out, &["✗ frames", "must stand alone"]);
    let sharing = tell_at(dir.path(), &["doctor", "--cors-origins", "*,https://shop.example"]);
    assert_eq!(sharing.code, Some(1), "{sharing:#?}");
    names(&sharing.out, &["✗ cross-origin sharing", "must stand alone"]);
}

#[test]
fn stress_finds_the_server_of_a_data_folder() {
    let server = Server::demo();
    let report = tell_at(server.data_dir(), &["stress", "--rate", "50", "--duration", "1s", "--json"]).json();
    assert_eq!(report["outcomes"]["success"], 50, "{report:#}");
    assert_eq!(server.status("sale_1")["totalSold"], 50);
}

#[test]
fn openapi_prints_the_document_that_the_server_serves() {
    let printed = tell(&["openapi"]).json();
    assert_eq!(printed, Server::demo().get("/openapi.json").json());
    assert!(printed["paths"]["/api/v1/sale/purchase"].is_object());
}

// ── The admin token ──────────────────────────────────────────────────────────────────────────────────────

/// Has a server do all it does with its token, and asserts that none of it shows in its log.
fn never_says(mut server: Server, token: &str) {
    let bearer = format!("Bearer {token}");
    for (token, expected) in [(bearer.as_str(), 404), ("Bearer wrong", 401)] {
        let headers = [("authorization", token), ("content-type", "application/json")];
        let reply = server.request("POST", "/api/v1/admin/reset", &headers, br#"{"saleId":"none"}"#);
        assert_eq!(reply.status, expected, "{reply:?}");
    }
    server.signal("TERM");
    assert!(server.ended_within(Duration::from_secs(60)).is_some());
    server.until("its last word is read", |server| server.log().contains("goodbye"));
    let log = server.log();
    assert!(!log.contains(token), "{log}");
}

#[test]
fn a_token_that_was_made_is_kept_for_its_owner_and_never_logged() {
    let server = Server::start(&["--log", "trace"]);
    let file = server.data_dir().join("admin-token");
    names(&server.log(), &["the admin token is in", file.to_str().expect("a plain path")]);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let token = fs::read_to_string(&file).expect("it can be read");
    assert_eq!(token.trim().len(), 64);
    never_says(server, token.trim());
}

#[test]
fn a_token_that_was_given_is_not_kept_and_never_logged() {
    let mut command = flashsale();
    let dir = Arc::new(folder());
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "trace", "--data-dir"]).arg(dir.path());
    command.env("FLASHSALE_ADMIN_TOKEN", "a-token-that-was-given-to-it");
    let server = Server::spawn(command, dir);
    assert!(!server.data_dir().join("admin-token").exists());
    never_says(server, "a-token-that-was-given-to-it");
    // Nor does help show it to whoever looks over a shoulder.
    let mut help = flashsale();
    help.args(["serve", "--help"]).env("FLASHSALE_ADMIN_TOKEN", "a-token-that-was-given-to-it");
    assert!(!run(help).good().contains("a-token-that-was-given-to-it"));
}

#[test]
fn the_demonstration_says_its_token_on_loopback_and_has_none_of_it_elsewhere() {
    names(&Server::demo().log(), &[TOKEN]);

    let dir = Arc::new(folder());
    let mut command = flashsale();
    command.args(["serve", "--demo", "--listen", "0.0.0.0:0", "--data-dir"]).arg(dir.path());
    let mut server = Server::spawn(command, dir);
    server.url = server.url.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(server.status("sale_1")["remainingStock"], 100);
    assert_eq!(server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "sale_1" })).status, 401);
    assert!(!server.log().contains(TOKEN), "{}", server.log());
    // Whoever holds the folder still gets in.
    tell_at(server.data_dir(), &["reset", "--sale", "sale_1"]).good();
    assert_eq!(server.status("sale_1")["epoch"], 2);
}

// ── The seed's own checks ────────────────────────────────────────────────────────────────────────────────

// Word for word from the seed document, with `<sale_id>` to be replaced.
const CONFIRMED_ORDERS: &str = "SELECT COUNT(*) as confirmed_orders 
FROM orders 
WHERE sale_id = <sale_id> AND status = 'CONFIRMED';";

const DUPLICATE_USERS: &str = "SELECT user_id, COUNT(*) as purchase_count 
FROM orders 
WHERE sale_id = <sale_id>
GROUP BY user_id 
HAVING COUNT(*) > 1;";

const OVERSELLING: &str = "SELECT 
    s.total_stock,
    COUNT(o.id) as total_orders,
    s.total_stock - COUNT(o.id) as remaining,
    CASE 
        WHEN COUNT(o.id) > s.total_stock THEN '❌ OVERSOLD!'
        ELSE '✅ OK'
    END as status
FROM sales s
LEFT JOIN orders o ON s.id = o.sale_id
WHERE s.id = <sale_id>
GROUP BY s.id, s.total_stock;";

const AUDIT_TRAIL: &str = "SELECT event_type, COUNT(*) 
FROM order_audit_trail 
WHERE sale_id = <sale_id> 
GROUP BY event_type 
ORDER BY COUNT(*) DESC;";

/// What the `sqlite3` program prints for a statement on the ledger: a line a row, fields between bars.
fn sqlite3(data_dir: &Path, statement: &str) -> Vec<String> {
    let mut command = Command::new("sqlite3");
    command.arg("-batch").arg("-readonly").arg(data_dir.join("flashsale.db"));
    command.arg(statement.replace("<sale_id>", "'sale_1'"));
    let started = command.stdin(Stdio::null()).output();
    let output = started.expect("the program sqlite3 must be installed: apt-get install sqlite3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

fn seeds_checks_pass(data_dir: &Path) {
    assert_eq!(sqlite3(data_dir, CONFIRMED_ORDERS), ["100"]);
    assert_eq!(sqlite3(data_dir, DUPLICATE_USERS), [""; 0]);
    assert_eq!(sqlite3(data_dir, OVERSELLING), ["100|100|0|✅ OK"]);
    let mut trail = sqlite3(data_dir, AUDIT_TRAIL);
    assert_eq!(trail[..2], ["ATTEMPTED|10000", "REJECTED_SOLD_OUT|9900"]);
    trail.sort();
    assert_eq!(trail, ["ATTEMPTED|10000", "CONFIRMED|100", "REJECTED_SOLD_OUT|9900", "RESERVED|100"]);
}

#[test]
fn the_seeds_sql_checks_pass_after_its_stress_test() {
    let server = Server::demo();
    let report = stress(&server, &["--sale", "sale_1", "--rate", "2000", "--duration", "5s"]).good();
    names(&report, &["Total Requests: 10000", "SUCCESS: 100 (1.00%)", "SOLD_OUT: 9900 (99.00%)", "PASSED"]);
    // Beside the running server, once its worker and its trail have caught up…
    server.until("all is confirmed and on record", |server| {
        let figures = tell_at(server.data_dir(), &["verify", "--sale", "sale_1"]).good();
        server.status("sale_1")["confirmed"] == 100 && figures.contains("10000 attempted")
    });
    seeds_checks_pass(server.data_dir());
    // …and on the file that it leaves behind.
    let (status, dir) = server.terminate();
    assert!(status.success());
    seeds_checks_pass(dir.path());
}

//! What must hold of what other replicas show, for any bytes; see `crate::fuzzing`.

use std::collections::HashMap;

use super::{Pulse, State};

/// The pulses of a replica, one a line, each a beat after the other: no count is too large for the sum.
pub fn pulses(data: &[u8]) {
    let mut state = State::default();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        let Ok(pulse) = serde_json::from_slice::<Pulse>(line) else { continue };
        let written = serde_json::to_vec(&pulse).expect("a pulse is plain text and numbers");
        serde_json::from_slice::<Pulse>(&written).expect("it was written so");
        let shown = HashMap::from([("one".to_owned(), pulse.clone()), ("two".to_owned(), pulse)]);
        for (_, news) in state.take(shown, "one") {
            let latency = |share| news.reading.latency(share);
            assert!(latency(0.5) <= latency(0.99));
        }
    }
}

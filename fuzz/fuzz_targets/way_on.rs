#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flashsale_server::fuzzing::way_on(data));

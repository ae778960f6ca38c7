#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockeye::test::fuzz::proxy_handshake(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lb_data_plane::fuzzing::chunked_body(data));

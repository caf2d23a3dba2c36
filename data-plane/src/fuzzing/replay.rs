//! Replays the seeds of the fuzzers, so that what they found once is checked by every
//! test run.

use std::{fs, path::Path};

/// Runs a target on its seeds, and names the one that fails.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    let failed: Vec<_> = seeds
        .iter()
        .filter(|seed| {
            let data = fs::read(seed).unwrap();
            std::panic::catch_unwind(|| run(&data)).is_err()
        })
        .collect();
    assert!(failed.is_empty(), "{target} fails on {failed:?}");
}

#[test]
fn seeds_of_request_head_hold() {
    replay("request_head", super::request_head);
}

#[test]
fn seeds_of_chunked_body_hold() {
    replay("chunked_body", super::chunked_body);
}

#[test]
fn seeds_of_response_head_hold() {
    replay("response_head", super::response_head);
}

#[test]
fn seeds_of_upgrade_hold() {
    replay("upgrade", super::upgrade);
}

#[test]
fn seeds_of_differential_hold() {
    replay("differential", super::differential);
}

/// A seed of one target is an input of the others as well.
#[test]
fn requests_of_all_seeds_hold_in_every_target_that_reads_requests() {
    for seeds in ["request_head", "upgrade", "differential"] {
        replay(seeds, super::request_head);
        replay(seeds, super::upgrade);
        replay(seeds, super::differential);
    }
}

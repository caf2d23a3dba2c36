//! What was acknowledged is there, whenever the control plane is killed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{api::Api, cluster::Cluster, full_scale};
use tokio::{sync::watch, task::JoinSet};

use crate::program;

/// Writers at the same time.
const WRITERS: u64 = 16;

/// Takes the numbers from a counter and writes a backend for each, until a write fails;
/// the ids of those that were acknowledged, with their revisions.
async fn write(
    api: Api,
    numbers: Arc<AtomicU64>,
    last: u64,
    acknowledged: watch::Sender<u64>,
) -> Vec<(String, u64)> {
    let mut done = Vec::new();
    loop {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        if number >= last {
            return done;
        }
        let id = format!("b{number}");
        let backend = pb::Backend {
            id: id.clone(),
            pool: "default".to_owned(),
            address: format!("10.{}.{}.{}:80", number >> 16 & 255, number >> 8 & 255, number & 255),
            // Nobody is to probe what is not there.
            admin_state: pb::AdminState::Disabled.into(),
            ..pb::Backend::default()
        };
        match api.put(Any::Backend(backend), pb::WriteOptions::default()).await {
            Ok(written) => {
                done.push((id, written.revision));
                acknowledged.send_modify(|count| *count += 1);
            }
            Err(_) => return done,
        }
    }
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let (rounds, writes) = if full_scale() { (10, 1000) } else { (3, 100) };
    let mut cluster = Cluster::start(program(), 0).await;
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let mut newest = 0;
    for round in 0..rounds {
        let numbers = Arc::new(AtomicU64::new(round * writes));
        let acknowledged = watch::Sender::new(0);
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            // A connection each: one that breaks must not take the others' answers.
            let api = Api::new(cluster.grpc());
            let last = (round + 1) * writes;
            writers.spawn(write(api, Arc::clone(&numbers), last, acknowledged.clone()));
        }
        // Somewhere in the middle, a different one each time.
        let until = writes / 5 + fastrand::u64(0..writes / 2);
        let mut receiver = acknowledged.subscribe();
        receiver.wait_for(|count| *count >= until).await.unwrap();
        cluster.kill_control_plane().await;
        let mut here = 0;
        while let Some(done) = writers.join_next().await {
            for (id, revision) in done.unwrap() {
                here += 1;
                newest = newest.max(revision);
                expected.insert(id);
            }
        }
        assert!(here < writes, "the kill came too late to prove anything");
        cluster.start_control_plane().await;
        let (objects, revision) = cluster.api.list("backend").await;
        let found: BTreeSet<String> = objects
            .into_iter()
            .map(|object| match object {
                Any::Backend(backend) => backend.id,
                other => panic!("{other:?}"),
            })
            .collect();
        let missing: Vec<&String> = expected.difference(&found).collect();
        assert!(missing.is_empty(), "round {round}: acknowledged, but not there: {missing:?}");
        assert!(revision >= newest, "revision {revision} is older than {newest}");
        // What was stored and not acknowledged may be there; it counts from now on.
        let extra = found.len() - expected.len();
        println!("round {round}: killed after {here} of {writes}, {extra} more were stored");
        assert!(extra as u64 <= WRITERS, "{extra}");
        expected = found;
    }
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_directory_is_refused() {
    let cluster = Cluster::start(program(), 0).await;
    let directory = cluster.control_plane_dir();
    let data_dir = format!("--data-dir={}", directory.display());
    let args = ["control-plane", "--grpc=127.0.0.1:0", "--http=127.0.0.1:0", &data_dir];
    let refused = program().run(&args).await.expect(78);
    assert!(refused.stderr.contains(directory.to_str().unwrap()), "{refused:?}");
    assert!(refused.stderr.contains("--data-dir"), "{refused:?}");
    // And on the same address.
    let grpc = format!("--grpc={}", cluster.grpc());
    let other = format!("--data-dir={}", cluster.path("other").display());
    let refused = program().run(&["control-plane", &grpc, "--http=127.0.0.1:0", &other]).await;
    let refused = refused.expect(9);
    assert!(refused.stderr.contains(&cluster.grpc().to_string()), "{refused:?}");
}

#[tokio::test]
async fn a_control_plane_stops_in_order_on_sigterm() {
    let mut cluster = Cluster::start(program(), 1).await;
    cluster.control_plane().signal(rustix::process::Signal::TERM);
    let mut process = cluster.take_control_plane();
    assert_eq!(process.exited().await, 0);
    assert_eq!(process.complaints(&[]), [""; 0]);
    cluster.start_control_plane().await;
    cluster.settled().await;
}

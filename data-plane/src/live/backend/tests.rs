use lb_core::model::{BackendId, Incarnation, PoolName};

use super::*;

#[test]
fn a_full_bucket_goes_on_counting() {
    let identity = Identity {
        id: BackendId::new("b1").unwrap(),
        incarnation: Incarnation(1),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    let state = BackendState::new(
        identity,
        PoolName::default_pool(),
        1,
        Box::new([]),
        1,
        &Arc::new(Trouble::new()),
    );
    let bucket = LatencyHistogram::bucket_of(100);
    state.live.workers[0].0.latency[bucket].store(u32::MAX, Relaxed);
    for more in 0..3 {
        let latency = state.counters().latency;
        assert_eq!(
            latency.sparse().collect::<Vec<_>>(),
            [(u32::try_from(bucket).unwrap(), u64::from(u32::MAX) + more)]
        );
        state.count_end(0, None, Some(100));
    }
}

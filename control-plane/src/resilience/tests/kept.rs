//! Backends that there is a reason to take out, and that stay because the pool cannot spare them.

use lb_core::model::EjectedBy;

use super::*;

impl World {
    /// Who stays, and by what it would be out.
    fn stay(&self) -> Vec<(String, EjectedBy)> {
        let kept = self.resilience.kept();
        for (id, kept) in &kept {
            assert_eq!(self.resilience.kept_of(id).as_ref(), Some(kept), "{id}");
        }
        // Whoever stays is looked for among these, and nobody else is to be left there.
        let looked_at = self.with(|state, _, _| state.retained.clone());
        assert!(looked_at.iter().eq(kept.keys()), "{looked_at:?}, and {kept:?}");
        kept.into_iter().map(|(id, kept)| (id.to_string(), kept.by)).collect()
    }

    /// The breakers of as many as the pool can spare are open, and that of one more would be.
    async fn with_one_kept_by_its_breaker() -> Self {
        let mut world = Self::new(4).await;
        for number in 1..=2 {
            world.fail(number).await;
        }
        assert!(world.is_out(1) && !world.is_out(2), "a third of four is one");
        assert_eq!(world.stay(), [("b2".to_owned(), EjectedBy::Breaker)]);
        world
    }

    /// The breakers of as many as the pool can spare are open, and another backend differs.
    async fn with_one_kept_as_an_outlier() -> Self {
        let mut world = Self::new(8).await;
        world.pass(Duration::from_millis(100)).await;
        for number in 7..=8 {
            world.fail(number).await;
            assert!(world.is_out(number), "a third of eight is two");
        }
        world.differ().await;
        assert!(!world.is_out(1));
        assert_eq!(world.stay(), [("b1".to_owned(), EjectedBy::Outlier)]);
        world
    }

    /// Nothing else in the pool is up, and the breaker of the first backend would be open. Nobody
    /// has sent it anything for longer than its window.
    async fn with_the_last_one_kept() -> Self {
        let mut world = Self::new(2).await;
        let down = world.word(2, Health::Down, "check_status");
        world.settle(vec![down]).await;
        world.fail(1).await;
        world.pass(Duration::from_secs(11)).await;
        assert!(!world.is_out(1));
        assert_eq!(world.stay(), [("b1".to_owned(), EjectedBy::Breaker)]);
        assert_eq!(world.news(), [("b1".to_owned(), "ejection_refused")]);
        world
    }

    /// What is told since the last call.
    fn news(&mut self) -> Vec<(String, &'static str)> {
        let told = std::mem::take(&mut self.told).into_iter();
        told.map(|(what, id, _)| (id.to_string(), what.name())).collect()
    }

    async fn fail(&mut self, number: u64) {
        self.report("p1", number, (0, 20), None);
        self.settle(Vec::new()).await;
    }

    /// Every second request to the first backend fails until outliers are looked for: no breaker
    /// opens for that.
    async fn differ(&mut self) {
        for number in 1..=6 {
            let failing = number == 1;
            for _ in 0..100 {
                self.report("p1", number, (1, 0), None);
                self.report("p1", number, (u64::from(!failing), u64::from(failing)), None);
            }
        }
        self.pass(Duration::from_secs(11)).await;
    }

    async fn detect_outliers(&mut self, enabled: bool) {
        let name = PoolName::default_pool();
        let mut pool = self.registry.read(|view| view.catalog.pools()[&name].value.clone());
        pool.resilience.outlier.enabled = enabled;
        self.put(Resource::Pool(pool)).await;
        self.pass(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn without_outlier_detection_nobody_stays_who_would_be_out_by_it() {
    let mut world = World::with_one_kept_as_an_outlier().await;
    world.detect_outliers(false).await;
    assert_eq!(world.stay(), []);
    // It is found again.
    world.detect_outliers(true).await;
    assert_eq!(world.stay(), []);
    world.differ().await;
    assert_eq!(world.stay(), [("b1".to_owned(), EjectedBy::Outlier)]);

    let mut world = World::with_one_kept_by_its_breaker().await;
    world.detect_outliers(false).await;
    assert_eq!(world.stay(), [("b2".to_owned(), EjectedBy::Breaker)], "its breaker still asks");
}

#[tokio::test]
async fn an_outlier_stays_until_it_is_looked_for_and_is_none_any_more() {
    let mut world = World::with_one_kept_as_an_outlier().await;
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.stay().len(), 1, "nobody has looked since");
    world.pass(Duration::from_secs(6)).await;
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(world.stay(), []);
}

#[tokio::test]
async fn whoever_is_disabled_or_removed_does_not_stay() {
    for (by, id) in [(EjectedBy::Breaker, 2), (EjectedBy::Outlier, 1)] {
        for removed in [false, true] {
            let mut world = match by {
                EjectedBy::Breaker => World::with_one_kept_by_its_breaker().await,
                EjectedBy::Outlier => World::with_one_kept_as_an_outlier().await,
            };
            if removed {
                let name = format!("b{id}");
                let items = vec![Item::Delete { kind: Kind::Backend, name }];
                let request = WriteRequest { items, ..WriteRequest::default() };
                world.registry.write(request).await.unwrap();
            } else {
                world.set_state(id, AdminState::Disabled).await;
            }
            world.pass(Duration::from_millis(10)).await;
            assert_eq!(world.stay(), [], "{by:?}, removed: {removed}");
        }
    }
}

#[tokio::test]
async fn the_last_one_stays_failing_until_a_request_succeeds_and_no_longer() {
    let mut world = World::with_the_last_one_kept().await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!((world.stay().len(), world.news()), (1, vec![]), "nothing has happened since");
    world.report("p1", 1, (1000, 0), None);
    world.settle(Vec::new()).await;
    assert_eq!(world.stay(), []);
    assert_eq!(world.news(), [("b1".to_owned(), "ejection_refused_ended")]);
    world.pass(Duration::from_secs(11)).await;
    assert_eq!(world.news(), []);
}

#[tokio::test]
async fn the_last_one_does_not_stay_once_its_checks_took_it_down_and_brought_it_up_again() {
    let mut world = World::with_the_last_one_kept().await;
    let down = world.word(1, Health::Down, "check_status");
    world.settle(vec![down]).await;
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(world.resilience.kept().len(), 0, "it is down: it does not stay");
    assert_eq!(world.news(), [("b1".to_owned(), "ejection_refused_ended")]);
    let up = world.word(1, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    world.pass(Duration::from_millis(10)).await;
    assert_eq!((world.stay(), world.news()), (vec![], vec![]));
}

#[tokio::test]
async fn the_last_one_is_out_once_another_serves() {
    let mut world = World::with_the_last_one_kept().await;
    let up = world.word(2, Health::Up, "check_passed");
    world.settle(vec![up]).await;
    world.pass(Duration::from_millis(10)).await;
    assert!(world.is_out(1) && world.stay().is_empty());
    assert_eq!(world.news(), [("b1".to_owned(), "ejection_refused_ended")]);
}

#[tokio::test]
async fn whoever_is_enabled_again_does_not_stay() {
    let mut world = World::with_the_last_one_kept().await;
    assert!(world.resilience.may_forgive(), "both may happen within a tick");
    world.set_state(1, AdminState::Disabled).await;
    world.pass(Duration::from_millis(10)).await;
    world.set_state(1, AdminState::Enabled).await;
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(world.stay(), []);
    assert_eq!(world.news(), [("b1".to_owned(), "ejection_refused_ended")]);
    // What fails then is told.
    world.fail(1).await;
    assert_eq!(world.stay(), [("b1".to_owned(), EjectedBy::Breaker)]);
    assert_eq!(world.news(), [("b1".to_owned(), "ejection_refused")]);
}

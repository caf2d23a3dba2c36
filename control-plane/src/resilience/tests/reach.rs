//! A prober that is cut off, and pools that nobody asks for anything.

use lb_core::model::Pool;

use super::*;

impl World {
    pub(super) fn declared(&self, number: u64) -> Declared {
        let id = BackendId::new(&format!("b{number}")).unwrap();
        self.registry.read(|view| view.catalog.backends()[&id].value.clone())
    }

    pub(super) async fn put(&self, resource: Resource) {
        let resource = Box::new(resource);
        let item = Item::Put { resource, mode: PutMode::Upsert, assign_id: false };
        let request = WriteRequest { items: vec![item], ..WriteRequest::default() };
        self.registry.write(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_prober_that_is_cut_off_empties_no_pool_without_traffic() {
    let mut world = World::new(6).await;
    // The last three are a pool of their own, which nobody asks for anything.
    let quiet = PoolName::new("quiet").unwrap();
    let resource = Box::new(Resource::Pool(Pool::new(quiet.clone())));
    world.put(*resource).await;
    for number in 4..=6 {
        let stored = world.declared(number);
        world.put(Resource::Backend(Declared { pool: quiet.clone(), ..stored })).await;
    }
    let words = (4..=6).map(|n| world.word(n, Health::Up, "check_passed")).collect();
    world.settle(words).await;
    let cut_off = |world: &World, number| world.word(number, Health::Down, "backend_reset");
    let words = (1..=6).map(|number| cut_off(&world, number)).collect::<Vec<_>>();
    world.now += Duration::from_secs(1);
    (1..=3).for_each(|number| drop(world.report("p1", number, (10, 0), None)));
    // One after the other, as their probes are spread.
    for word in words {
        world.settle(vec![word]).await;
        world.pass(Duration::from_millis(300)).await;
    }
    for number in 1..=6 {
        let status = world.status(number);
        let found = (status.health, status.reason.code.as_str());
        assert_eq!(found, (Health::Up, "check_contradicted"), "b{number}");
    }
    // Nor does a lull; a request that fails ends the belief.
    world.pass(Duration::from_secs(60)).await;
    assert!((1..=6).all(|number| world.status(number).health == Health::Up));
    world.cut_off = true;
    (1..=3).for_each(|number| drop(world.report("p1", number, (0, 3), None)));
    world.pass(Duration::from_millis(100)).await;
    assert!((1..=6).all(|number| world.status(number).health == Health::Down));
}

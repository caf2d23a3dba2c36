//! What finding a route costs among 10 000, in each shape that they may have, beside the
//! one default route.
//!
//! Criterion follows changes from run to run; the run fails when a lookup takes more than
//! the microsecond that is promised.

mod common;

use std::{hint::black_box, process::ExitCode};

use criterion::{Criterion, Throughput};
use lb_core::{
    model::{HostMatch, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools},
    routing::RouteTable,
};

use self::common::{is_only_asked, timed};

const ROUTES: usize = 10_000;
const PROMISED_NS: f64 = 1000.0;

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let shapes = shapes();
    let mut group = criterion.benchmark_group("find a route");
    for shape in &shapes {
        let table = shape.table();
        group.throughput(Throughput::Elements(shape.asked.len() as u64));
        group.bench_function(shape.name, |bencher| bencher.iter(|| shape.ask(&table)));
    }
    group.finish();
    criterion.final_summary();
    if is_only_asked() {
        return ExitCode::SUCCESS;
    }
    println!();
    let mut kept = true;
    for shape in &shapes {
        let table = shape.table();
        let best = (0..30).map(|_| timed(|| shape.ask(&table))).min().unwrap_or_default();
        let each = best.as_nanos() as f64 / shape.asked.len() as f64;
        kept &= each <= PROMISED_NS;
        println!("{:<44} {each:>7.1} ns of {PROMISED_NS}", shape.name);
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Routes, and requests that take one each, in an order that no cache foresees.
struct Shape {
    name: &'static str,
    routes: Vec<Route>,
    asked: Vec<(String, String)>,
}

impl Shape {
    fn new(
        name: &'static str,
        route: impl Fn(usize) -> (String, String, String),
        asked: impl Fn(usize) -> (String, String),
    ) -> Self {
        let make = |i: usize| {
            let (host, prefix, path) = route(i);
            Route {
                name: RouteName::new(&format!("route{i}")).expect("a valid name"),
                listener: ListenerName::default_listener(),
                host: HostMatch::parse(&host).expect("a valid host"),
                path: PathMatch::parse(&prefix, &path).expect("a valid path"),
                pools: RoutePools::one(PoolName::default_pool()),
            }
        };
        // 7919 is prime to the number of routes: all are asked for, far from each other.
        let asked = (0..ROUTES).map(|i| asked(i * 7919 % ROUTES)).collect();
        Self { name, routes: (0..ROUTES).map(make).collect(), asked }
    }

    fn table(&self) -> RouteTable<usize> {
        RouteTable::new(self.routes.iter().zip(0..))
    }

    fn ask(&self, table: &RouteTable<usize>) {
        for (host, path) in &self.asked {
            let found = table.find(black_box(host.as_bytes()), black_box(path.as_bytes()));
            assert!(black_box(found).is_some(), "every request has a route");
        }
    }
}

fn shapes() -> Vec<Shape> {
    let no = String::new;
    let mut default = Shape::new(
        "the default route alone",
        |_| (no(), no(), no()),
        |i| (format!("shop{i}.example.com:8080"), "/orders?id=7".to_owned()),
    );
    default.routes.truncate(1);
    vec![
        default,
        Shape::new(
            "10 000 exact hosts",
            |i| (format!("shop{i}.example.com"), no(), no()),
            |i| (format!("shop{i}.example.com"), "/orders?id=7".to_owned()),
        ),
        Shape::new(
            "10 000 exact hosts, with upper case and port",
            |i| (format!("shop{i}.example.com"), no(), no()),
            |i| (format!("Shop{i}.Example.com:8080"), "/orders?id=7".to_owned()),
        ),
        Shape::new(
            "10 000 wildcard hosts",
            |i| (format!("*.shop{i}.example.com"), no(), no()),
            |i| (format!("www.eu.shop{i}.example.com"), "/orders?id=7".to_owned()),
        ),
        Shape::new(
            "10 000 path prefixes on one host",
            |i| ("example.com".to_owned(), format!("/shops/shop{i}/api"), no()),
            |i| ("example.com".to_owned(), format!("/shops/shop{i}/api/orders/7?x=1")),
        ),
        Shape::new(
            "10 000 exact paths on one host",
            |i| ("example.com".to_owned(), no(), format!("/shops/shop{i}/orders")),
            |i| ("example.com".to_owned(), format!("/shops/shop{i}/orders?x=1")),
        ),
    ]
}

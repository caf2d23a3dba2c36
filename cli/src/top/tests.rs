//! The screen as it is drawn, and what keys make of it.

use lb_core::model::{HostMatch, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools};
use lb_proto::v1::{self as pb, AdminState};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    frame_text,
    keys::Effect,
    pane::Pane,
    render::Look,
    state::{Over, Sample, State},
};
use crate::{
    command::{BackendChange, EventView, StatusFacts, StatusView},
    view::{BackendView, ObjectView},
};

/// 2026-11-22 21:52:11 UTC.
const NOW_MS: u64 = 1_795_384_331_000;

const PLAIN: Look = Look { colors: false, unicode: true };

fn backend(id: &str, health: pb::Health, requests: u64) -> BackendView {
    let reason = match health {
        pb::Health::Up => ("check_passed", "GET /health answered 200"),
        _ => ("backend_connect_refused", "connection refused"),
    };
    BackendView::from(pb::BackendView {
        backend: Some(pb::Backend {
            id: id.to_owned(),
            pool: "default".to_owned(),
            address: "localhost:8001".to_owned(),
            ..pb::Backend::default()
        }),
        status: Some(pb::BackendStatus {
            health: health.into(),
            since_unix_ms: NOW_MS - 41_000,
            reason: Some(pb::Reason { code: reason.0.to_owned(), message: reason.1.to_owned() }),
            ..pb::BackendStatus::default()
        }),
        totals: Some(pb::BackendTotals { requests, ..pb::BackendTotals::default() }),
        ..pb::BackendView::default()
    })
}

fn sample(rate: u32) -> Sample {
    let backends = vec![
        backend("backend1", pb::Health::Up, 9),
        backend("backend2", pb::Health::Down, 10),
        backend("backend3", pb::Health::Up, 100),
    ];
    let proxy = pb::Proxy {
        id: "proxy-1".to_owned(),
        state: "synced".to_owned(),
        applied_revision: 118,
        build_version: env!("CARGO_PKG_VERSION").to_owned(),
        listen_addresses: vec![pb::ListenAddress {
            listener: "default".to_owned(),
            address: "127.0.0.1:8080".to_owned(),
        }],
        ..pb::Proxy::default()
    };
    let pool = pb::Pool {
        name: "default".to_owned(),
        algorithm: "round_robin".to_owned(),
        ..pb::Pool::default()
    };
    let status = pb::GetStatusResponse {
        server_id: "cp-1".to_owned(),
        build_version: env!("CARGO_PKG_VERSION").to_owned(),
        version: Some(pb::Version { revision: 118, ..pb::Version::default() }),
        started_unix_ms: NOW_MS - 192_000,
        last_change_unix_ms: NOW_MS - 12_000,
        proxies: vec![proxy],
        pools: vec![pb::PoolStatus {
            pool: Some(pool),
            up: 2,
            down: 1,
            ..pb::PoolStatus::default()
        }],
        recent: Some(pb::RecentAnswers {
            window_ms: 10_000,
            status_classes: vec![0, u64::from(10 * rate), 0, 0, 0],
            ..pb::RecentAnswers::default()
        }),
        ..pb::GetStatusResponse::default()
    };
    let mut facts = StatusFacts::of(&status, NOW_MS);
    facts.backends.clone_from(&backends);
    "http".clone_into(&mut facts.pools[0].health);
    let listener = pb::Listener { name: "default".to_owned(), ..pb::Listener::default() };
    let object = Some(pb::object::Object::Listener(listener));
    facts.listeners.extend(ObjectView::read(pb::Object { object, revision: 1 }));
    facts.routes = vec![Route {
        name: RouteName::new("default").unwrap(),
        listener: ListenerName::default_listener(),
        host: HostMatch::Any,
        path: PathMatch::Prefix("/".into()),
        pools: RoutePools::one(PoolName::default_pool()),
    }];
    let status = StatusView::new(status, &facts);
    Sample { status, backends, at_unix_ms: NOW_MS }
}

fn event(sequence: u64) -> EventView {
    EventView::from(pb::Event {
        sequence,
        at_unix_ms: NOW_MS - 41_000 + sequence,
        r#type: "backend_down".to_owned(),
        kind: "backend".to_owned(),
        name: "backend2".to_owned(),
        revision: 118,
        reason: None,
        ..pb::Event::default()
    })
}

fn state(pane: Pane) -> State {
    let mut state = State::new("http://127.0.0.1:9400", pane, false);
    state.heard(sample(3));
    state
}

fn press(state: &mut State, keys: &str) -> Effect {
    let mut effect = Effect::Nothing;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            key => KeyCode::Char(key),
        };
        effect = state.pressed(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

fn shown(state: &State) -> String {
    frame_text(state, PLAIN, (80, 16), NOW_MS + 2000)
}

#[test]
fn the_overview_is_the_status_with_a_curve() {
    let mut state = state(Pane::Overview);
    for rate in [0, 6, 12] {
        state.heard(sample(rate));
    }
    insta::assert_snapshot!(shown(&state), @r"
    lbctl top  2s ago  http://127.0.0.1:9400
     1 Overview  2 Pools  3 Backends  4 Proxies  5 Events
    REQ/S    ▂ ▄█
    FLEET    1/1 proxies in sync at revision 118 (changed 14s ago)
    CONTROL  cp-1, version 0.1.0, up 3m14s
    TRAFFIC  last 10s: 12 req/s  100% ok  p50 -  p99 -  in flight 0

    POOL     ALGORITHM     UP  DOWN  REQ/S  SUCCESS  P99
    default  round_robin  2/3     1      0        -    -

    ! backend2 localhost:8001 down for 41s: connection refused (backend_connect_refu
      next: nothing listens at localhost:8001: start the server, or correct the addr


    = lbctl status
    ? help  q quit
    ");
}

#[test]
fn lines_stand_under_the_columns_of_the_commands() {
    let mut state = state(Pane::Backends);
    press(&mut state, "j");
    insta::assert_snapshot!(frame_text(&state, PLAIN, (80, 9), NOW_MS + 2000), @r"
    lbctl top  2s ago  http://127.0.0.1:9400
     1 Overview  2 Pools  3 Backends  4 Proxies  5 Events
    ID        ADDRESS         POOL     WEIGHT  STATE  SINCE  IN-FLIGHT  REQUESTS  FA
    backend1  localhost:8001  default       1  up       43s          0         9
    backend2  localhost:8001  default       1  down     43s          0        10
    backend3  localhost:8001  default       1  up       43s          0       100

    = lbctl get backends
    ? help  q quit
    ");
}

#[test]
fn events_are_listed_once_the_newest_first() {
    let mut state = state(Pane::Events);
    for sequence in [1, 2, 2, 1] {
        state.happened(event(sequence));
    }
    assert_eq!(state.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [2, 1]);
    assert!(
        shown(&state).contains("21:51:30  backend_down  backend/backend2"),
        "{}",
        shown(&state)
    );
}

#[test]
fn no_size_is_too_small() {
    let mut states = vec![State::new("http://a", Pane::Overview, true)];
    states.extend(Pane::ALL.map(state));
    let mut asking = state(Pane::Backends);
    press(&mut asking, "x");
    let mut helping = state(Pane::Pools);
    press(&mut helping, "?");
    let mut away = state(Pane::Proxies);
    away.missed("connection refused", NOW_MS);
    states.extend([asking, helping, away]);
    for state in &states {
        for size in [(0, 0), (1, 1), (2, 5), (5, 2), (40, 10), (80, 24), (300, 100)] {
            let text = frame_text(state, PLAIN, size, NOW_MS);
            assert!(text.lines().all(|line| line.chars().count() <= size.0.into()), "{size:?}");
        }
    }
}

#[test]
fn without_unicode_and_colours_everything_is_ascii() {
    let look = Look { colors: false, unicode: false };
    let mut state = state(Pane::Overview);
    press(&mut state, "?");
    let text = frame_text(&state, look, (80, 24), NOW_MS);
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains("REQ/S    #") && text.contains("+ keys"), "{text}");
}

#[test]
fn a_change_is_made_after_a_yes_only() {
    let mut state = state(Pane::Backends);
    assert_eq!(press(&mut state, "d"), Effect::Nothing);
    assert!(matches!(state.over, Over::Question(_)));
    let asked = shown(&state);
    for part in ["~ backend backend1  state enabled -> draining", "= lbctl drain-backend backend1"]
    {
        assert!(asked.contains(part), "{asked}");
    }
    assert_eq!(press(&mut state, "n"), Effect::Nothing);
    assert_eq!(state.notice.as_deref(), Some("nothing was changed"));
    let Effect::Change(action) = press(&mut state, "dy") else { panic!("a change") };
    assert_eq!(action.change, BackendChange::State(AdminState::Draining));
    let Effect::Change(action) = press(&mut state, "j+\n") else { panic!("a change") };
    assert_eq!((&*action.backend, action.change), ("backend2", BackendChange::Weight(2)));
    // It is enabled already.
    assert_eq!(press(&mut state, "ey"), Effect::Nothing);
}

#[test]
fn taking_out_the_last_that_serves_is_warned_of() {
    let mut state = state(Pane::Backends);
    press(&mut state, "x");
    assert!(!shown(&state).contains("the last of pool"), "{}", shown(&state));
    let mut lonely = sample(0);
    lonely.backends.truncate(2);
    press(&mut state, "n");
    state.heard(lonely);
    press(&mut state, "x");
    assert!(shown(&state).contains("the last of pool default"), "{}", shown(&state));
}

#[test]
fn read_only_is_read_only() {
    let mut state = State::new("http://a", Pane::Backends, true);
    state.heard(sample(0));
    for key in ["dy", "ey", "xy", "+y", "-y"] {
        assert_eq!(press(&mut state, key), Effect::Nothing, "{key}");
        assert_eq!(state.over, Over::Nothing, "{key}");
    }
    assert!(shown(&state).contains("read-only: start without"), "{}", shown(&state));
}

#[test]
fn a_control_plane_that_is_away_is_told_with_age_and_comes_back() {
    let mut state = state(Pane::Backends);
    state.missed("cannot reach the control plane: connection refused; start one", NOW_MS);
    state.missed("the same again", NOW_MS + 1000);
    let text = shown(&state);
    assert!(text.contains("CONTROL PLANE AWAY for 2s: the same again"), "{text}");
    assert!(text.contains("backend3"), "what was known stays: {text}");
    state.heard(sample(0));
    assert!(!shown(&state).contains("AWAY"));
}

#[test]
fn a_held_picture_does_not_move() {
    let mut state = state(Pane::Overview);
    press(&mut state, "p");
    state.heard(sample(99));
    state.happened(event(1));
    assert!(
        shown(&state).contains("PAUSED") && !shown(&state).contains("99 req"),
        "{}",
        shown(&state)
    );
    press(&mut state, "p");
    state.heard(sample(99));
    assert!(shown(&state).contains("99 req/s"), "{}", shown(&state));
}

#[test]
fn filter_and_order_are_told_and_can_be_given_up() {
    let mut state = state(Pane::Backends);
    press(&mut state, "/q2");
    // What is typed into a filter is no command.
    assert_eq!(state.filter, "q2");
    assert!(shown(&state).contains("nothing matches the filter"), "{}", shown(&state));
    press(&mut state, "\u{1b}/backend2\n");
    assert_eq!(state.chosen().as_deref(), Some("backend2"));
    assert!(shown(&state).contains("filter /backend2"), "{}", shown(&state));
    press(&mut state, "\u{1b}");
    // ID, ADDRESS, POOL, WEIGHT, STATE, SINCE, IN-FLIGHT, REQUESTS
    press(&mut state, "ssssssssS");
    assert!(shown(&state).contains("sorted by REQUESTS down"), "{}", shown(&state));
    assert_eq!(state.chosen().as_deref(), Some("backend3"));
}

#[test]
fn enter_tells_all_about_a_line_and_escape_goes_back() {
    for (pane, title, command) in [
        (Pane::Pools, "pool default: 2 of 3 up", "= lbctl describe pool default"),
        (Pane::Backends, "backend backend1: up", "= lbctl describe backend backend1"),
        (Pane::Proxies, "proxy proxy-1: synced", "= lbctl describe proxy proxy-1"),
    ] {
        let mut state = state(pane);
        press(&mut state, "\n");
        assert!(shown(&state).contains(title) && shown(&state).contains(command), "{title}");
        press(&mut state, "\u{1b}");
        assert_eq!(state.over, Over::Nothing);
    }
}

#[test]
fn what_is_described_may_go_away_meanwhile() {
    let mut state = state(Pane::Backends);
    press(&mut state, "\n");
    let mut without = sample(0);
    without.backends.clear();
    state.heard(without);
    assert!(shown(&state).contains("backend backend1 is gone"), "{}", shown(&state));
    press(&mut state, "\u{1b}");
    assert!(shown(&state).contains("nothing yet"), "{}", shown(&state));
    assert_eq!(press(&mut state, "xy"), Effect::Nothing);
}

#[test]
fn panes_are_chosen_by_number_and_in_turn() {
    let mut state = state(Pane::Overview);
    press(&mut state, "3");
    assert_eq!(state.pane, Pane::Backends);
    press(&mut state, "\t\t\t");
    assert_eq!(state.pane, Pane::Overview);
}

#[test]
fn the_end_comes_by_q_and_by_ctrl_c() {
    let mut state = state(Pane::Overview);
    assert_eq!(press(&mut state, "q"), Effect::Quit);
    for over in ["", "?", "/", "3\n"] {
        press(&mut state, over);
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.pressed(ctrl_c), Effect::Interrupt, "{over:?}");
    }
}

#[test]
fn no_key_at_any_place_breaks_anything() {
    let mut random = fastrand::Rng::with_seed(7);
    let codes = [
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Tab,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Backspace,
        KeyCode::Delete,
        KeyCode::F(1),
    ];
    let letters: Vec<char> = "12345/sSdex+-p?jkyn9".chars().collect();
    let mut state = State::new("http://a", Pane::Overview, false);
    for step in 0..5000 {
        let code = match random.usize(..codes.len() + letters.len()) {
            index if index < codes.len() => codes[index],
            index => KeyCode::Char(letters[index - codes.len()]),
        };
        state.pressed(KeyEvent::new(code, KeyModifiers::NONE));
        if step % 7 == 0 {
            let mut news = sample(random.u32(..100));
            news.backends.truncate(random.usize(..4));
            state.heard(news);
        }
        if step % 50 == 0 {
            let size = (random.u16(0..100), random.u16(0..30));
            assert!(frame_text(&state, PLAIN, size, NOW_MS).len() < 100_000, "step {step}");
        }
    }
}

//! Commands that change backends.

use std::time::Duration;

use lb_core::model::Address;
use lb_proto::v1::{self as pb, object::Object as Wire};
use tokio_stream::StreamExt as _;

use super::{
    Session, checks, drain, get, progress, remedy,
    write::{self, Change},
};
use crate::{
    args::{AddBackend, BackendName, RemoveBackend, SetBackend, WriteArgs},
    exit::Failure,
    output,
    view::{self, BackendView, WriteView},
};

/// How long `add-backend` waits for the first check, which comes at once.
const FIRST_CHECK: Duration = Duration::from_millis(1500);

/// `add-backend`
pub(super) async fn add(session: &Session, args: AddBackend) -> Result<(), Failure> {
    let state = if args.disabled { pb::AdminState::Disabled } else { pb::AdminState::Enabled };
    let backend = pb::Backend {
        id: args.id.unwrap_or_default(),
        pool: args.pool,
        address: args.address.to_string(),
        weight: args.weight,
        admin_state: state.into(),
        labels: args.labels.into_iter().collect(),
        incarnation: 0,
        source: String::new(),
        drain: None,
        max_in_flight: args.max_in_flight.unwrap_or(0),
    };
    let events = follow(session, &args.write).await?;
    let expected = args.write.if_revision.unwrap_or(0);
    let change = Change::Create(Wire::Backend(backend));
    let view = write::send(session, &args.write, change, expected).await?;
    let reported = write::report(session, &view, &write::additions(&view));
    if args.address.is_loopback() && view.changed {
        warn_of_loopback(session, &args.address).await;
    }
    if let (Some(events), Some(object)) = (events, view.objects.first())
        && view.changed
    {
        tell_first_check(session, events, object.name()).await?;
    }
    reported
}

/// Events from before a change on, since the check that follows it does not wait for us.
async fn follow(
    session: &Session,
    args: &WriteArgs,
) -> Result<Option<tonic::Streaming<pb::Event>>, Failure> {
    if !checks::are_told(session, args) {
        return Ok(None);
    }
    let request = pb::WatchRequest::default();
    Ok(Some(session.client.call(session.client.fleet().watch(request)).await?))
}

/// Every machine takes a loopback address for its own.
async fn warn_of_loopback(session: &Session, address: &Address) {
    // The change is made; what cannot be found out now is no reason to fail.
    let Ok(proxies) = get::proxies(session).await else { return };
    let elsewhere = proxies.iter().filter(|proxy| proxy.elsewhere && proxy.is_connected());
    let elsewhere: Vec<&str> = elsewhere.map(|proxy| proxy.id.as_str()).collect();
    if !elsewhere.is_empty() {
        output::note(&remedy::loopback(&address.to_string(), &elsewhere));
    }
}

/// Says how the first check ended; nobody should have to ask why a new backend gets nothing.
async fn tell_first_check(
    session: &Session,
    events: tonic::Streaming<pb::Event>,
    id: &str,
) -> Result<(), Failure> {
    let mut verdicts = Box::pin(events.filter_map(Result::ok).filter(|event| {
        event.kind == "backend" && event.name == id && event.r#type.starts_with("backend_")
    }));
    // The event is the alarm clock; the state is read where it is kept.
    drop(tokio::time::timeout(FIRST_CHECK, verdicts.next()).await);
    let Some(backend) = read(session, id).await? else { return Ok(()) };
    output::print(&first_check(&backend))
}

fn first_check(backend: &BackendView) -> String {
    let BackendView { id, reason, .. } = backend;
    match backend.health {
        "up" if backend.serves() => format!("{id} is up: {}", reason.sentence()),
        "down" => {
            let mut text = format!("{id} is down: {}", reason.sentence());
            if let Some(remedy) = remedy::for_reason(&reason.code, backend) {
                text += &format!("\nnext: {remedy}");
            }
            text
        }
        _ if backend.admin_state == "enabled" && backend.weight == 0 => {
            format!("{id} gets no traffic: its weight is 0   (lbctl set-backend {id} --weight 1)")
        }
        _ if backend.admin_state != "enabled" => format!(
            "{id} gets no traffic: it is {}, weight {}   (lbctl enable-backend {id})",
            backend.admin_state, backend.weight
        ),
        _ => format!(
            "{id} is checking: it gets traffic after its first passing check   \
             (lbctl wait backend/{id} --for healthy)"
        ),
    }
}

/// One backend with all that is known about it.
pub(super) async fn read(session: &Session, id: &str) -> Result<Option<BackendView>, Failure> {
    let request = pb::ListBackendsRequest { pool: String::new(), id: id.to_owned() };
    match session.client.call(session.client.fleet().list_backends(request)).await {
        Ok(answer) => {
            let mut views = answer.backends.into_iter().map(BackendView::from);
            Ok(views.find(|view| view.id == id))
        }
        Err(failure) if failure.exit == crate::exit::Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// `set-backend`
pub(super) async fn set(session: &Session, args: SetBackend) -> Result<(), Failure> {
    if args.weight == Some(0) {
        drain::warn_of_empty_pool(session, &args.id).await?;
    }
    let events = match &args.address {
        Some(_) => follow(session, &args.write).await?,
        None => None,
    };
    let (view, lines) = edit(session, &args).await?;
    let reported = write::report(session, &view, &lines);
    if let Some(address) = args.address.as_ref().filter(|_| view.changed)
        && address.is_loopback()
    {
        warn_of_loopback(session, address).await;
    }
    // Another address is another backend, which must pass a check before it gets traffic.
    if let Some(events) = events.filter(|_| view.changed) {
        tell_first_check(session, events, &args.id).await?;
    }
    reported
}

async fn edit(session: &Session, args: &SetBackend) -> Result<(WriteView, Vec<String>), Failure> {
    write::modify(session, &args.write, "backend", &args.id, |object| {
        let Wire::Backend(backend) = object else { return Ok(()) };
        if let Some(weight) = args.weight {
            backend.weight = Some(weight);
        }
        if let Some(slots) = args.max_in_flight {
            backend.max_in_flight = slots;
        }
        if let Some(address) = &args.address {
            backend.address = address.to_string();
        }
        for key in &args.unlabels {
            backend.labels.remove(key);
        }
        backend.labels.extend(args.labels.iter().cloned());
        Ok(())
    })
    .await
}

/// Changes what the operator wants of a backend, or its weight, and says in one line how far
/// the change got.
pub(crate) async fn change(
    session: &Session,
    id: &str,
    what: BackendChange,
) -> Result<String, Failure> {
    let args = WriteArgs::default();
    let view = match what {
        BackendChange::State(state) => {
            write::send(session, &args, Change::State(id.to_owned(), state), 0).await?
        }
        BackendChange::Weight(weight) => {
            let id = id.to_owned();
            edit(session, &SetBackend { id, weight: Some(weight), ..SetBackend::default() })
                .await?
                .0
        }
    };
    match view.progress.as_ref().and_then(|p| progress::failure(p, session.client.timeout())) {
        Some(failure) => Err(failure),
        None => Ok(progress::summary(&view)),
    }
}

/// What can be changed about a backend at the press of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BackendChange {
    State(pb::AdminState),
    Weight(u32),
}

/// `enable-backend`
pub(super) async fn enable(session: &Session, args: BackendName) -> Result<(), Failure> {
    set_state(session, args, pb::AdminState::Enabled).await
}

/// `disable-backend`
pub(super) async fn disable(session: &Session, args: BackendName) -> Result<(), Failure> {
    drain::warn_of_empty_pool(session, &args.id).await?;
    set_state(session, args, pb::AdminState::Disabled).await
}

async fn set_state(
    session: &Session,
    args: BackendName,
    state: pb::AdminState,
) -> Result<(), Failure> {
    let expected = args.write.if_revision.unwrap_or(0);
    let line = format!("~ backend {}  state {}", args.id, view::state_name(state));
    let view = write::send(session, &args.write, Change::State(args.id, state), expected).await?;
    write::report(session, &view, &[line])
}

/// `remove-backend`
pub(super) async fn remove(session: &Session, args: RemoveBackend) -> Result<(), Failure> {
    drain::warn_of_empty_pool(session, &args.id).await?;
    let line = format!("- backend {}", args.id);
    let name = pb::ObjectName { kind: "backend".to_owned(), name: args.id };
    let expected = args.write.if_revision.unwrap_or(0);
    let view = write::send(session, &args.write, Change::Delete(name), expected).await?;
    write::report(session, &view, &[line])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(health: pb::Health, code: &str, message: &str) -> BackendView {
        let reason = pb::Reason { code: code.to_owned(), message: message.to_owned() };
        BackendView::from(pb::BackendView {
            backend: Some(pb::Backend {
                id: "backend4".to_owned(),
                pool: "default".to_owned(),
                address: "localhost:8004".to_owned(),
                ..pb::Backend::default()
            }),
            status: Some(pb::BackendStatus {
                health: health.into(),
                reason: Some(reason),
                ..pb::BackendStatus::default()
            }),
            ..pb::BackendView::default()
        })
    }

    #[test]
    fn whoever_adds_a_backend_hears_how_its_first_check_went() {
        let up = backend(pb::Health::Up, "check_passed", "GET /health answered 200");
        insta::assert_snapshot!(first_check(&up), @"backend4 is up: GET /health answered 200 (check_passed)");
        let down = backend(pb::Health::Down, "check_status", "GET /health answered 404");
        insta::assert_snapshot!(first_check(&down), @r"
        backend4 is down: GET /health answered 404 (check_status)
        next: set another path with 'lbctl set-pool default --health-path /', or only connect: 'lbctl set-pool default --health tcp'
        ");
        let slow = backend(pb::Health::Unknown, "not_checked", "");
        insta::assert_snapshot!(first_check(&slow), @"backend4 is checking: it gets traffic after its first passing check   (lbctl wait backend/backend4 --for healthy)");
    }
}

//! Changes: sending them, retrying those that read first, and telling what became
//! of them.

use std::time::Duration;

use lb_proto::v1 as pb;

use super::{Session, progress};
use crate::{
    args::WriteArgs,
    exit::{Exit, Failure},
    output,
    view::{ObjectView, WriteView},
};

/// How much longer than the proxies' time an answer may take to arrive.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// How often a change that reads first begins again when somebody else was quicker.
const ATTEMPTS_MAX: u32 = 5;

/// A change to be made.
#[derive(Debug)]
pub(super) enum Change {
    /// A new object.
    Create(pb::object::Object),
    /// A new value of an object.
    Replace(pb::object::Object),
    /// The end of an object.
    Delete(pb::ObjectName),
    /// What the operator wants of a backend.
    State(String, pb::AdminState),
    /// The drain of a backend.
    Drain {
        /// Which.
        id: String,
        /// After how long what is left is cut.
        timeout: Option<Duration>,
        /// Remove it when nothing is left.
        remove: bool,
    },
    /// Several changes at once; the expected revision is that of the store.
    Apply(Vec<pb::ApplyItem>),
}

/// Sends a change; `expected_revision` 0 means whatever it is.
pub(super) async fn send(
    session: &Session,
    args: &WriteArgs,
    change: Change,
    expected_revision: u64,
) -> Result<WriteView, Failure> {
    let options = Some(options(session, args, expected_revision));
    let mut registry = session.client.registry();
    let put = |object, mode: pb::PutMode| pb::PutRequest {
        object: Some(pb::Object { object: Some(object), revision: 0 }),
        mode: mode.into(),
        options: options.clone(),
    };
    let deadline = session.client.timeout().saturating_add(ANSWER_GRACE);
    let client = &session.client;
    let answer = match change {
        Change::Create(object) => {
            let request = put(object, pb::PutMode::Create);
            client.call_within(deadline, registry.put(request)).await
        }
        Change::Replace(object) => {
            let request = put(object, pb::PutMode::Replace);
            client.call_within(deadline, registry.put(request)).await
        }
        Change::Delete(pb::ObjectName { kind, name }) => {
            let request = pb::DeleteRequest { kind, name, options };
            client.call_within(deadline, registry.delete(request)).await
        }
        Change::State(id, state) => {
            let state = state.into();
            let request = pb::SetBackendStateRequest { id, state, options, ..Default::default() };
            client.call_within(deadline, registry.set_backend_state(request)).await
        }
        Change::Drain { id, timeout, remove } => {
            let timeout = timeout.unwrap_or_default().as_millis();
            let request = pb::SetBackendStateRequest {
                id,
                state: pb::AdminState::Draining.into(),
                options,
                drain_timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
                remove_when_drained: remove,
            };
            client.call_within(deadline, registry.set_backend_state(request)).await
        }
        Change::Apply(items) => {
            let request = pb::ApplyRequest { items, options };
            client.call_within(deadline, registry.apply(request)).await
        }
    };
    let view = answer.map(|answer| WriteView::read(answer, args.dry_run)).map_err(doubtful)?;
    for warning in &view.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(view)
}

/// A change that was sent and not answered may have been stored all the same.
fn doubtful(mut failure: Failure) -> Failure {
    if matches!(failure.exit, Exit::TimedOut | Exit::Unreachable) {
        failure.message += "\nThe change was sent; whether it is stored, 'lbctl get' or 'lbctl watch --past 10' tells.";
    }
    failure
}

/// Reads an object, lets `change` edit it, and writes it back, again if somebody else
/// was quicker. Returns the answer and the lines that tell what changed.
pub(super) async fn modify(
    session: &Session,
    args: &WriteArgs,
    kind: &str,
    name: &str,
    change: impl Fn(&mut pb::object::Object) -> Result<(), Failure>,
) -> Result<(WriteView, Vec<String>), Failure> {
    let mut attempt = 1;
    loop {
        let before = get(session, kind, name).await?;
        let mut object = before.object.clone().ok_or_else(|| unknown_kind(kind, name))?;
        change(&mut object)?;
        let expected = args.if_revision.unwrap_or(before.revision);
        match send(session, args, Change::Replace(object), expected).await {
            Err(failure)
                if failure.exit == Exit::Conflict
                    && args.if_revision.is_none()
                    && attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            Err(failure) => return Err(failure),
            Ok(view) => {
                let lines = differences(&before, &view);
                return Ok((view, lines));
            }
        }
    }
}

/// Reads one object.
pub(super) async fn get(session: &Session, kind: &str, name: &str) -> Result<pb::Object, Failure> {
    let request = pb::GetRequest { kind: kind.to_owned(), name: name.to_owned() };
    let answer = session.client.call(session.client.registry().get(request)).await?;
    answer.object.ok_or_else(|| unknown_kind(kind, name))
}

/// Prints what changed and how far it got; an incomplete change is a failure.
pub(super) fn report(session: &Session, view: &WriteView, lines: &[String]) -> Result<(), Failure> {
    session.screen.answer(
        view,
        || view.objects.iter().map(|object| format!("{}/{}", object.kind, object.name())).collect(),
        || {
            let summary = progress::summary(view);
            let lines = if view.changed { lines } else { &[] };
            let lines: Vec<&str> =
                lines.iter().map(String::as_str).chain([summary.as_str()]).collect();
            lines.join("\n")
        },
    )?;
    let failure = view
        .progress
        .as_ref()
        .and_then(|progress| progress::failure(progress, session.client.timeout()));
    failure.map_or(Ok(()), Err)
}

/// `+ backend backend4  address localhost:8004  weight 1`, for each object. Of the many
/// settings of pools and listeners, those that are not the default.
pub(super) fn additions(view: &WriteView) -> Vec<String> {
    view.objects
        .iter()
        .map(|object| {
            let mut line = format!("+ {} {}", object.kind, object.name());
            match object.chosen() {
                Some(fields) => {
                    for (field, value) in fields {
                        line += &format!("  {field} {value}");
                    }
                }
                None => line += "  with every default",
            }
            line
        })
        .collect()
}

/// `~ backend backend4  weight 1 -> 3`.
fn differences(before: &pb::Object, view: &WriteView) -> Vec<String> {
    let Some(before) = ObjectView::read(before.clone()) else { return Vec::new() };
    let Some(after) = view.objects.first() else { return Vec::new() };
    let (old, new) = (before.fields(), after.fields());
    let find = |fields: &crate::view::Fields, name: &str| {
        fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone())
    };
    let mut line = format!("~ {} {}", after.kind, after.name());
    // The settings of a session's cookie come and go with the cookie.
    let follows =
        |field: &str| field.starts_with("session-") && find(&old, "sticky") != find(&new, "sticky");
    let chosen = after.chosen().unwrap_or_default();
    for (field, value) in &new {
        if follows(field) && find(&chosen, field).is_none() {
            continue;
        }
        match find(&old, field) {
            Some(former) if former == *value => {}
            Some(former) => line += &format!("  {field} {former} -> {value}"),
            None => line += &format!("  {field} {value}"),
        }
    }
    for (field, former) in &old {
        if find(&new, field).is_none() && !follows(field) {
            line += &format!("  {field} {former} -> none");
        }
    }
    vec![line]
}

fn options(session: &Session, args: &WriteArgs, expected_revision: u64) -> pb::WriteOptions {
    let timeout_ms = u32::try_from(session.client.timeout().as_millis()).unwrap_or(u32::MAX);
    pb::WriteOptions {
        expected_revision,
        idempotency_key: String::new(),
        dry_run: args.dry_run,
        force: args.force,
        wait: (!args.no_wait && !args.dry_run).then_some(pb::Wait { timeout_ms }),
    }
}

fn unknown_kind(kind: &str, name: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "the control plane's {kind} {name:?} is of a kind that this lbctl does not know; \
             update lbctl to the control plane's version"
        ),
    )
}

#[cfg(test)]
mod tests {
    use lb_core::model::{Affinity, CookieAffinity, Listener, ListenerName, Pool, PoolName};

    use super::*;

    fn backend(weight: u32, labels: &[(&str, &str)]) -> pb::Object {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let backend = pb::Backend {
            id: "backend4".to_owned(),
            pool: "default".to_owned(),
            address: "localhost:8004".to_owned(),
            weight: Some(weight),
            labels,
            ..pb::Backend::default()
        };
        pb::Object { object: Some(pb::object::Object::Backend(backend)), revision: 7 }
    }

    fn answer(object: pb::Object) -> WriteView {
        let wire = pb::WriteResponse {
            revision: 118,
            changed: true,
            objects: vec![object],
            progress: None,
            warnings: Vec::new(),
        };
        WriteView::read(wire, false)
    }

    #[test]
    fn an_addition_shows_the_object_as_stored() {
        let lines = additions(&answer(backend(1, &[("zone", "a")])));
        insta::assert_snapshot!(lines.join("\n"), @"+ backend backend4  address localhost:8004  weight 1  pool default  labels zone=a");
    }

    fn listener(change: impl FnOnce(&mut pb::Listener)) -> pb::Object {
        let name = ListenerName::new("internal").unwrap();
        let mut listener = pb::Listener::from(&Listener::new(name));
        change(&mut listener);
        pb::Object { object: Some(pb::object::Object::Listener(listener)), revision: 7 }
    }

    #[test]
    fn an_addition_with_many_settings_shows_those_that_were_chosen() {
        let lines = additions(&answer(listener(|_| {})));
        insta::assert_snapshot!(lines.join("\n"), @"+ listener internal  with every default");
        let lines = additions(&answer(listener(|l| l.max_body_bytes = 10 << 20)));
        insta::assert_snapshot!(lines.join("\n"), @"+ listener internal  max-body-bytes 10MiB");
    }

    #[test]
    fn limits_are_shown_as_they_are_typed() {
        let before = listener(|l| l.max_connections = 100);
        let after = listener(|l| {
            l.max_body_bytes = 10 << 20;
            l.max_head_bytes = 32 << 10;
            l.max_trailer_bytes = 1000;
            l.drain_timeout_ms = 1500;
        });
        let lines = differences(&before, &answer(after));
        insta::assert_snapshot!(lines.join("\n"), @"~ listener internal  max-connections 100 -> unlimited  max-head-bytes 64KiB -> 32KiB  max-trailer-bytes 8KiB -> 1000B  max-body-bytes unlimited -> 10MiB  drain-timeout 2s -> 1s500ms");
    }

    #[test]
    fn a_change_shows_only_what_differs() {
        let lines = differences(&backend(1, &[("zone", "a")]), &answer(backend(3, &[])));
        insta::assert_snapshot!(lines.join("\n"), @"~ backend backend4  weight 1 -> 3  labels zone=a -> none");
    }

    #[test]
    fn the_answer_has_stable_names_for_programs() {
        let json = serde_json::to_string_pretty(&answer(backend(1, &[]))).unwrap();
        insta::assert_snapshot!(json, @r#"
        {
          "revision": 118,
          "changed": true,
          "dry_run": false,
          "objects": [
            {
              "kind": "backend",
              "revision": 7,
              "id": "backend4",
              "address": "localhost:8004",
              "pool": "default",
              "weight": 1,
              "max_in_flight": 0,
              "admin_state": "enabled",
              "labels": {},
              "source": null,
              "incarnation": 0
            }
          ],
          "progress": null
        }
        "#);
    }

    #[test]
    fn a_cookies_settings_come_and_go_with_it() {
        let object = |affinity: &Affinity| {
            let pool = Pool { affinity: affinity.clone(), ..Pool::new(PoolName::default_pool()) };
            pb::Object { object: Some(pb::object::Object::Pool((&pool).into())), revision: 2 }
        };
        let line = |before, after| {
            let wire = pb::WriteResponse { objects: vec![object(after)], ..Default::default() };
            differences(&object(before), &WriteView::read(wire, false)).join("\n")
        };
        let plain = Affinity::Cookie(CookieAffinity::default());
        let named = CookieAffinity { name: "shop".into(), ..CookieAffinity::default() };
        let named = Affinity::Cookie(named);
        assert_eq!(line(&named, &Affinity::None), "~ pool default  sticky cookie -> none");
        assert_eq!(line(&Affinity::None, &plain), "~ pool default  sticky none -> cookie");
        let told = line(&Affinity::None, &named);
        assert_eq!(told, "~ pool default  sticky none -> cookie  session-cookie shop");
        let told = line(&named, &plain);
        assert_eq!(told, "~ pool default  session-cookie shop -> lb_session");
    }
}

//! `apply` and `diff`: making true what files declare, and telling what is not true yet.

use lb_core::model::Kind;
use lb_proto::{
    document::{self, Action, Change, Declaration, Source},
    v1 as pb,
};
use serde::Serialize;
use serde_json::Value;

use super::{Session, declared, progress, write};
use crate::{
    args::{Apply, Diff, OutputFormat, WriteArgs},
    exit::{Exit, Failure},
    view::{ProgressView, WriteView},
};

/// How often a comparison begins again when somebody else was quicker. Verdicts about
/// backends count, too, so there are more than for a change of one object.
const ATTEMPTS_MAX: u32 = 20;

/// What becomes of all declared objects.
#[derive(Debug, Serialize)]
struct ApplyView {
    revision: u64,
    changed: bool,
    dry_run: bool,
    objects: Vec<ChangeView>,
    progress: Option<ProgressView>,
}

/// What becomes of one object.
#[derive(Debug, Serialize)]
struct ChangeView {
    kind: &'static str,
    name: String,
    action: &'static str,
    fields: Vec<FieldView>,
    #[serde(skip)]
    details: String,
}

/// A key that changes.
#[derive(Debug, Serialize)]
struct FieldView {
    key: String,
    old: Option<Value>,
    new: Option<Value>,
}

/// `apply`
pub(super) async fn apply(session: &Session, args: &Apply) -> Result<(), Failure> {
    let sources = declared::load(&args.files)?;
    let (view, answer) = attempt(session, &sources, &args.write_args(), args.prune).await?;
    let summary = progress::summary(&answer);
    print(session, &view, &summary)?;
    let failure = view
        .progress
        .as_ref()
        .and_then(|progress| progress::failure(progress, session.client.timeout()));
    failure.map_or(Ok(()), Err)
}

/// `diff`: an application that is not made. The exit code 1 says that something differs, so
/// that every error needs another one.
pub(super) async fn diff(session: &Session, args: &Diff) -> Result<(), Failure> {
    let not_one = |failure: Failure| match failure.exit {
        Exit::Failed => Failure { exit: Exit::Usage, ..failure },
        _ => failure,
    };
    let sources = declared::load(&args.files)?;
    // What it would need force for is shown all the same.
    let write = WriteArgs { dry_run: true, force: true, ..WriteArgs::default() };
    let (view, _) = attempt(session, &sources, &write, args.prune).await.map_err(not_one)?;
    let count = |action: Action| {
        view.objects.iter().filter(|object| object.action == action.name()).count()
    };
    let actions = [Action::Created, Action::Changed, Action::Removed, Action::Unchanged];
    let counts: Vec<String> = actions
        .into_iter()
        .filter(|action| count(*action) > 0)
        .map(|action| format!("{} {}", count(action), action.name()))
        .collect();
    let summary = if counts.is_empty() { "nothing is declared".into() } else { counts.join(", ") };
    print(session, &view, &summary)?;
    if view.changed { Err(Failure::new(Exit::Failed, "")) } else { Ok(()) }
}

/// Compares and sends, again if the state changed in between: what is sent is what was
/// compared with.
async fn attempt(
    session: &Session,
    sources: &[Source],
    args: &WriteArgs,
    prune: bool,
) -> Result<(ApplyView, WriteView), Failure> {
    let mut attempts = 1;
    loop {
        let (current, revision) = declared::stored(session).await?;
        let known = |kind: Kind, name: &str| {
            let stays = !prune || name == "default";
            stays && current.iter().any(|object| object.kind() == kind && object.name() == name)
        };
        let declared =
            Declaration::read(sources, known).map_err(|problems| declared::invalid(&problems))?;
        let changes = document::changes(&declared, &current, prune);
        let items = changes.iter().filter(|change| change.is_needed()).map(item).collect();
        match write::send(session, args, write::Change::Apply(items), revision).await {
            Ok(answer) => return Ok((ApplyView::new(changes, &answer), answer)),
            Err(failure) if is_late(&failure) && attempts < ATTEMPTS_MAX => attempts += 1,
            Err(failure) => return Err(failure),
        }
    }
}

/// Somebody was quicker, as opposed to an object that is there under another name.
fn is_late(failure: &Failure) -> bool {
    failure.exit == Exit::Conflict && failure.message.starts_with("the store is at revision")
}

fn item(change: &Change) -> pb::ApplyItem {
    use pb::apply_item::Change as Wire;
    let change = match &change.resource {
        Some(resource) => {
            let mut object = lb_proto::convert::object_to_wire(resource, 0);
            if change.without_id
                && let Some(pb::object::Object::Backend(backend)) = &mut object.object
            {
                backend.id.clear();
            }
            Wire::Put(object)
        }
        None => {
            let (kind, name) = (change.kind.name().to_owned(), change.name.clone());
            Wire::Delete(pb::ObjectName { kind, name })
        }
    };
    pb::ApplyItem { change: Some(change) }
}

impl ApplyView {
    /// The answer has the objects that were put in their order, with the ids that they got.
    fn new(changes: Vec<Change>, answer: &WriteView) -> Self {
        let mut put = answer.objects.iter();
        let objects = changes
            .into_iter()
            .map(|change| {
                let stored = (change.is_needed() && change.resource.is_some())
                    .then(|| put.next())
                    .flatten()
                    .map(|object| object.name().to_owned());
                ChangeView {
                    kind: change.kind.name(),
                    action: change.action.name(),
                    details: change.details(),
                    name: stored.unwrap_or(change.name),
                    fields: change
                        .fields
                        .into_iter()
                        .map(|field| FieldView { key: field.key, old: field.old, new: field.new })
                        .collect(),
                }
            })
            .collect();
        Self {
            revision: answer.revision,
            changed: answer.changed,
            dry_run: answer.dry_run,
            objects,
            progress: answer.progress.clone(),
        }
    }
}

fn print(session: &Session, view: &ApplyView, summary: &str) -> Result<(), Failure> {
    session.screen.answer(
        view,
        || view.objects.iter().map(|object| format!("{}/{}", object.kind, object.name)).collect(),
        || lay_out(view, summary, session.screen.format() == OutputFormat::Wide),
    )
}

/// A line for each object that changes; for all of them if `every`.
fn lay_out(view: &ApplyView, summary: &str, every: bool) -> String {
    let name = |object: &ChangeView| format!("{}/{}", object.kind, object.name);
    let is_shown = |object: &&ChangeView| every || object.action != Action::Unchanged.name();
    let shown = || view.objects.iter().filter(is_shown);
    let width = shown().map(|object| name(object).len()).max().unwrap_or_default();
    let mut text = String::new();
    for object in shown() {
        let details = if object.details.is_empty() {
            String::new()
        } else {
            format!(" ({})", object.details)
        };
        text += &format!("{:<width$}  {}{details}\n", name(object), object.action);
    }
    text + summary
}

#[cfg(test)]
mod tests {
    use lb_core::model::{Pool, PoolName, Resource};
    use lb_proto::document::Format;

    use super::*;

    #[test]
    fn every_object_is_a_line_with_what_becomes_of_it() {
        let text = "[[pools]]\nname = \"default\"\nrise = 3\n[[backends]]\naddress = \"a:1\"";
        let source = Source { name: "f".into(), text: text.into(), format: Format::Toml };
        let declared = Declaration::read(&[source], |_, _| false).unwrap();
        let pool = |name: &str| Resource::Pool(Pool::new(PoolName::new(name).unwrap()));
        let current = [pool("default"), pool("old")];
        let changes = document::changes(&declared, &current, true);
        let backend = pb::Backend {
            id: "backend7".to_owned(),
            address: "a:1".to_owned(),
            ..pb::Backend::default()
        };
        let Some(pool) = changes[0].resource.as_ref() else { panic!("a pool is put") };
        let answer = pb::WriteResponse {
            revision: 9,
            changed: true,
            objects: vec![
                lb_proto::convert::object_to_wire(pool, 9),
                pb::Object { object: Some(pb::object::Object::Backend(backend)), revision: 9 },
            ],
            progress: None,
            warnings: Vec::new(),
        };
        let view = ApplyView::new(changes, &WriteView::read(answer, false));
        insta::assert_snapshot!(lay_out(&view, "the end", false), @r"
        pool/default      changed (rise: 2 -> 3)
        backend/backend7  created (address: a:1)
        pool/old          removed
        the end
        ");
    }
}

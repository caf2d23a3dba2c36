//! `validate`, `export` and `schema`: declared state and files.

use std::{io, path::Path, process::ExitCode};

use lb_core::model::{Kind, Resource};
use lb_proto::{
    convert,
    document::{self, Declaration, Document, Problems, Source, schema},
    v1 as pb,
};

use serde::Serialize;

use super::Session;
use crate::{
    args::{Export, Files, Global, OutputFormat, Validate},
    exit::{Exit, Failure},
    format,
    output::{self, Screen},
};

/// What was found when all is well.
#[derive(Debug, Serialize)]
struct Valid {
    valid: bool,
    objects: usize,
}

/// `validate`
pub(super) fn validate(args: &Validate, global: &Global) -> Result<ExitCode, Failure> {
    let sources = load(&args.files)?;
    let fresh = |kind: Kind, name: &str| {
        name == "default" && matches!(kind, Kind::Pool | Kind::Listener | Kind::Route)
    };
    let declared = Declaration::read(&sources, fresh).map_err(|problems| invalid(&problems))?;
    let view = Valid { valid: true, objects: declared.wishes.len() };
    let names = || {
        let wishes = declared.wishes.iter().map(|wish| &wish.resource);
        wishes.map(|object| format!("{}/{}", object.kind().name(), object.name())).collect()
    };
    Screen::new(global.output).answer(&view, names, || {
        format!("valid: {}", format::count(view.objects, "object", "objects"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `schema`
pub(super) fn schema() -> Result<ExitCode, Failure> {
    output::print(&format!("{:#}", schema::json_schema()))?;
    Ok(ExitCode::SUCCESS)
}

/// `export`
pub(super) async fn export(session: &Session, args: &Export) -> Result<(), Failure> {
    let (objects, _) = stored(session).await?;
    let document = Document::of(&objects, args.all);
    match session.screen.format() {
        OutputFormat::Toml | OutputFormat::Table => output::print(&document.to_toml()),
        OutputFormat::Json => output::print(&document.to_json()),
        OutputFormat::Yaml | OutputFormat::Wide | OutputFormat::Name => {
            Err(Failure::new(Exit::Usage, "export writes what apply reads: -o toml or -o json"))
        }
    }
}

/// All objects that can be declared, and the store's revision. Kinds of a newer control
/// plane are none of ours.
pub(super) async fn stored(session: &Session) -> Result<(Vec<Resource>, u64), Failure> {
    let client = &session.client;
    let answer = client.call(client.registry().list(pb::ListRequest::default())).await?;
    let known = answer.objects.into_iter().filter(|object| object.object.is_some());
    let objects: Result<Vec<Resource>, _> = known.map(convert::object_from_wire).collect();
    let objects = objects.map_err(|invalid| {
        Failure::new(
            Exit::Failed,
            format!(
                "the control plane holds what this lbctl does not understand ({invalid}); update \
                 lbctl to the control plane's version"
            ),
        )
    })?;
    Ok((objects, answer.store_revision))
}

/// Reads all files.
pub(super) fn load(args: &Files) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for file in args.iter() {
        if file == Path::new("-") {
            let source = Source::read("-", io::stdin().lock()).map_err(|error| {
                let message = format!("cannot read standard input: {error}");
                Failure::new(Exit::BadConfiguration, message)
            })?;
            sources.push(source);
        } else {
            let files = document::load(file).map_err(|unreadable| {
                Failure::new(Exit::BadConfiguration, unreadable.to_string())
            })?;
            sources.extend(files);
        }
    }
    Ok(sources)
}

/// All faults, one a line.
pub(super) fn invalid(problems: &Problems) -> Failure {
    let count = format::count(problems.list().len(), "fault", "faults");
    let message = format!("{count} in what is declared; nothing was changed\n{problems}");
    Failure::new(Exit::BadConfiguration, message)
}

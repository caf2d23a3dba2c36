//! A document as a tree of values, each with its place.
//!
//! TOML and JSON give the same tree, so everything behind it is written once. Serde alone
//! would stop at the first fault, and knows no places in JSON.

use std::{collections::HashSet, ops::Range, sync::Arc};

use serde_json::{Map, Value, value::RawValue};
use toml::de::{DeTable, DeValue};

use super::{Format, Pairs, Place, Problem, Source, in_words};

/// Deeper values are leaves: nothing that is known goes there.
const DEPTH_MAX: usize = 4;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Tree,
}

/// What a value consists of.
#[derive(Debug)]
pub(super) enum Tree {
    Table(Vec<Entry>),
    List(Vec<Node>),
    Leaf(Value),
}

/// One key of a table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// The bare value.
    pub(super) fn to_json(&self) -> Value {
        match &self.value {
            Tree::Table(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect(),
            ),
            Tree::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Tree::Leaf(value) => value.clone(),
        }
    }
}

/// Faults of syntax that are told one by one: each draws others behind it, and a file of another
/// kind has nothing else.
const SYNTAX_FAULTS_MAX: usize = 3;

/// Parses a source. What cannot be read is left out and added to `problems`.
pub(super) fn parse(source: &Source, problems: &mut Vec<Problem>) -> Option<Node> {
    let lines = Lines::new(source);
    match source.format {
        Format::Toml => {
            let (table, errors) = DeTable::parse_recoverable(&source.text);
            let problem = |(number, error): (usize, &toml::de::Error)| {
                let message = match number {
                    SYNTAX_FAULTS_MAX => format!(
                        "the file is no TOML: {} more such faults; is it the right file?",
                        errors.len() - SYNTAX_FAULTS_MAX
                    ),
                    _ => format!("the file is no TOML: {}", error.message().replace('\n', "; ")),
                };
                let place = lines.place(error.span().map_or(0, |span| span.start));
                Problem { place, message }
            };
            problems.extend(errors.iter().enumerate().take(SYNTAX_FAULTS_MAX + 1).map(problem));
            // What was recovered would only draw further, misleading complaints.
            errors.is_empty().then(|| lines.toml_table(table.span(), table.get_ref(), problems))
        }
        Format::Json => match serde_json::from_str::<&RawValue>(&source.text) {
            Ok(raw) => Some(lines.json(raw, 0, problems)),
            Err(error) => {
                problems.push(Problem {
                    place: Place {
                        source: Arc::clone(&lines.name),
                        line: error.line().max(1),
                        column: error.column().max(1),
                    },
                    message: format!("the file is no JSON: {}", in_words(&error)),
                });
                None
            }
        },
    }
}

struct Lines<'a> {
    name: Arc<str>,
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(source: &'a Source) -> Self {
        let newlines = source.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { name: source.name.as_str().into(), text: &source.text, starts }
    }

    fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or_default();
        Place { source: Arc::clone(&self.name), line, column: before.chars().count() + 1 }
    }

    fn toml_table(
        &self,
        span: Range<usize>,
        table: &DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) -> Node {
        let mut entries: Vec<(usize, Entry)> = table
            .iter()
            .map(|(key, value)| {
                let place = self.place(key.span().start);
                let node = self.toml(value.span(), value.get_ref(), problems);
                (key.span().start, Entry { key: key.get_ref().to_string(), place, node })
            })
            .collect();
        // The table is sorted by name; people read it from the top.
        entries.sort_by_key(|(at, _)| *at);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Node { place: self.place(span.start), value: Tree::Table(entries) }
    }

    fn toml(&self, span: Range<usize>, value: &DeValue<'_>, problems: &mut Vec<Problem>) -> Node {
        let place = self.place(span.start);
        let leaf = match value {
            DeValue::Table(table) => return self.toml_table(span, table, problems),
            DeValue::Array(items) => {
                let items =
                    items.iter().map(|item| self.toml(item.span(), item.get_ref(), problems));
                return Node { place, value: Tree::List(items.collect()) };
            }
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(truth) => Value::from(*truth),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::from(number),
                    Err(_) => {
                        let message = format!("{} is too large", number.as_str());
                        problems.push(Problem { place: place.clone(), message });
                        Value::Null
                    }
                }
            }
            DeValue::Float(number) => {
                number.as_str().parse::<f64>().map_or(Value::Null, Value::from)
            }
            DeValue::Datetime(time) => Value::from(time.to_string()),
        };
        Node { place, value: Tree::Leaf(leaf) }
    }

    fn json(&self, raw: &RawValue, depth: usize, problems: &mut Vec<Problem>) -> Node {
        let text = raw.get();
        // It borrows from the text, so where it stands can be told.
        let offset = (text.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let place = self.place(offset);
        let value = match text.as_bytes().first() {
            Some(b'{') if depth < DEPTH_MAX => {
                serde_json::from_str::<Pairs<'_>>(text).ok().map(|Pairs(pairs)| {
                    let mut entries: Vec<Entry> = Vec::new();
                    let mut keys = HashSet::with_capacity(pairs.len());
                    for (key, raw) in pairs {
                        let node = self.json(raw, depth + 1, problems);
                        let place = node.place.clone();
                        if !keys.insert(key.clone()) {
                            let message = format!("the key {key:?} is given twice");
                            problems.push(Problem { place, message });
                            continue;
                        }
                        entries.push(Entry { key, place, node });
                    }
                    Tree::Table(entries)
                })
            }
            Some(b'[') if depth < DEPTH_MAX => {
                serde_json::from_str::<Vec<&RawValue>>(text).ok().map(|items| {
                    let items = items.into_iter().map(|raw| self.json(raw, depth + 1, problems));
                    Tree::List(items.collect())
                })
            }
            _ => None,
        };
        let leaf = || Tree::Leaf(serde_json::from_str(text).unwrap_or_default());
        Node { place, value: value.unwrap_or_else(leaf) }
    }
}

/// A map of one pair.
pub(super) fn single(key: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

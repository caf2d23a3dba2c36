//! What is kept on disk of this proxy's shares: what it may use at its next start when no
//! control plane answers then.
//!
//! A line for each quantity: its kind, incarnation, safe share, number of proxies and name.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use lb_core::lease::{Quantity, QuantityKind};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    data_dir::{Leave, write_durably},
    keep::{Subject, keep},
};

/// Safe share and number of proxies, by quantity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Remembered(BTreeMap<Quantity, (u64, u32)>);

/// Where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    path: PathBuf,
    leave: Leave,
}

const HEADER: &str = "lb-leases 1";

impl Remembered {
    pub(super) fn new(shares: impl Iterator<Item = (Quantity, (u64, u32))>) -> Self {
        Self(shares.collect())
    }

    pub(super) fn get(&self, quantity: &Quantity) -> Option<(u64, u32)> {
        self.0.get(quantity).copied()
    }

    pub(super) fn take(&mut self, quantity: &Quantity) -> Option<(u64, u32)> {
        self.0.remove(quantity)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (quantity, (safe, proxies)) in &self.0 {
            let Quantity { kind, name, incarnation } = quantity;
            // Writing to a string does not fail.
            writeln!(text, "{} {incarnation} {safe} {proxies} {name}", kind.name()).ok();
        }
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return None;
        }
        lines.map(line).collect::<Option<_>>().map(Self)
    }
}

fn line(line: &str) -> Option<(Quantity, (u64, u32))> {
    let mut words = line.splitn(5, ' ');
    let kind = words.next()?;
    let kinds = [QuantityKind::Pool, QuantityKind::Backend, QuantityKind::Limit];
    let kind = kinds.into_iter().find(|known| known.name() == kind)?;
    let incarnation = words.next()?.parse().ok()?;
    let (safe, proxies) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let name = words.next()?.into();
    Some((Quantity { kind, name, incarnation }, (safe, proxies)))
}

impl Shelf {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { path: directory.join("leases"), leave: Leave::default() }
    }

    /// What was kept; nothing if that cannot be read.
    pub(crate) fn load(&self) -> Remembered {
        match fs::read_to_string(&self.path) {
            Ok(text) => Remembered::decode(&text).unwrap_or_else(|| {
                warn!(path = %self.path.display(), "kept shares of limits cannot be read; without a control plane, what they limit waits for one");
                Remembered::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(path = %self.path.display(), %error, "kept shares of limits cannot be read");
                }
                Remembered::default()
            }
        }
    }

    /// Keeps what is to be remembered on disk, for as long as that changes.
    pub(super) async fn keep(self, changes: watch::Receiver<Remembered>) {
        let subject = Subject {
            name: "the shares of limits",
            otherwise: "after a restart without a control plane, limits would not hold as they should",
        };
        keep(subject, &self.path, changes, |remembered| {
            let (shelf, remembered) = (self.clone(), remembered.clone());
            move || shelf.save(&remembered)
        })
        .await;
    }

    fn save(&self, remembered: &Remembered) -> io::Result<()> {
        self.leave.write(|| write_durably(&self.path, remembered.encode().as_bytes()))
    }

    /// Leaves the file to the process that takes over: nothing is written once this returns.
    pub(crate) fn end(&self) {
        self.leave.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(directory.path());
        assert!(shelf.load().is_empty());
        let quantity = |kind, name: &str| Quantity { kind, name: name.into(), incarnation: 7 };
        let remembered = Remembered::new(
            [
                (quantity(QuantityKind::Backend, "backend1"), (3, 8)),
                (quantity(QuantityKind::Limit, "per client"), (u64::MAX, 1)),
            ]
            .into_iter(),
        );
        shelf.save(&remembered).unwrap();
        assert_eq!(shelf.load(), remembered);
        let (retired, successor) = (shelf.clone(), Shelf::new(directory.path()));
        shelf.end();
        retired.save(&Remembered::default()).unwrap();
        assert_eq!(successor.load(), remembered, "another process has the directory");
        fs::write(&shelf.path, "lb-leases 1\nbackend 1 x 2 b\n").unwrap();
        assert!(shelf.load().is_empty());
    }
}

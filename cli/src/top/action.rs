//! Changes at the press of a key, each asked about first.

use lb_proto::v1::AdminState;

use crate::{
    command::BackendChange,
    view::{BackendView, state_name},
};

/// A change of one backend that waits for a yes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Action {
    pub(super) backend: String,
    pub(super) change: BackendChange,
    /// What it changes, as the commands write it.
    pub(super) difference: String,
    /// Why to think twice.
    pub(super) warning: Option<String>,
}

impl Action {
    /// The change that a key stands for; nothing if there is nothing to change.
    pub(super) fn of_key(key: char, backend: &BackendView, all: &[BackendView]) -> Option<Self> {
        let weight = backend.weight;
        let change = match key {
            'd' => BackendChange::State(AdminState::Draining),
            'e' => BackendChange::State(AdminState::Enabled),
            'x' => BackendChange::State(AdminState::Disabled),
            '+' => BackendChange::Weight(weight.checked_add(1).filter(|weight| *weight <= 256)?),
            '-' => BackendChange::Weight(weight.checked_sub(1)?),
            _ => return None,
        };
        let (field, from, to) = match change {
            BackendChange::State(state) => {
                ("state", backend.admin_state.to_owned(), state_name(state).to_owned())
            }
            BackendChange::Weight(to) => ("weight", weight.to_string(), to.to_string()),
        };
        if from == to {
            return None;
        }
        let takes_out = match change {
            BackendChange::State(state) => state != AdminState::Enabled,
            BackendChange::Weight(weight) => weight == 0,
        };
        let mut others = all.iter().filter(|b| b.pool == backend.pool && b.id != backend.id);
        let last = takes_out && backend.serves() && !others.any(BackendView::serves);
        let warning = last.then(|| {
            format!("it is the last of pool {} that serves: requests will get 503", backend.pool)
        });
        let difference = format!("~ backend {}  {field} {from} -> {to}", backend.id);
        Some(Self { backend: backend.id.clone(), change, difference, warning })
    }

    /// The command that does the same.
    pub(super) fn command(&self) -> String {
        let id = &self.backend;
        match self.change {
            BackendChange::State(AdminState::Enabled) => format!("lbctl enable-backend {id}"),
            BackendChange::State(AdminState::Disabled) => format!("lbctl disable-backend {id}"),
            BackendChange::State(AdminState::Draining) => format!("lbctl drain-backend {id}"),
            BackendChange::Weight(weight) => format!("lbctl set-backend {id} --weight {weight}"),
        }
    }
}

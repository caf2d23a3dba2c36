//! Where a program keeps its things unless told otherwise.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The directory of a program of this name, by variables of the environment: `$STATE_DIRECTORY`
/// (set by systemd), else below `$XDG_STATE_HOME`, else below `~/.local/state`. Nothing if none of
/// them is set; an empty one is not.
pub fn state_dir(variable: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(list) = set("STATE_DIRECTORY") {
        // Several directories are separated by colons; the first is the unit's main one.
        return env::split_paths(&list).next();
    }
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/state")))?;
    Some(state.join("lb").join(name))
}

/// What a control plane keeps in its directory from its start on.
pub const OF_CONTROL_PLANE: &[&str] = &["control-plane.lock"];

/// What a proxy keeps in its directory, from its start or its first configuration on, as far as
/// nobody else would call it so.
pub const OF_PROXY: &[&str] = &["takeover.sock", "last-good", "seal-key"];

/// Whether a directory belongs to the other program: it has things of that one, and nothing of the
/// one that asks. Both may have been started with the same `LB_DATA_DIR`; those that share a
/// directory already go on.
#[must_use]
pub fn is_of_another(directory: &Path, own: &[&str], others: &[&str]) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| directory.join(name).exists());
    has(others) && !has(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into())
        };
        state_dir(variable, "control-plane")
    }

    #[test]
    fn the_directory_of_the_service_manager_comes_first() {
        let home = ("HOME", "/home/me");
        for (variables, expected) in [
            (&[("STATE_DIRECTORY", "/var/lib/lb:/x"), home][..], "/var/lib/lb"),
            (&[("XDG_STATE_HOME", "/state"), home], "/state/lb/control-plane"),
            (&[("STATE_DIRECTORY", ""), home], "/home/me/.local/state/lb/control-plane"),
        ] {
            assert_eq!(with(variables).unwrap(), Path::new(expected));
        }
        assert_eq!(with(&[]), None);
    }
}

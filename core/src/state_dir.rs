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

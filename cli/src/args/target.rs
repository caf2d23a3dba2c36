//! What `wait` waits on: `backend/backend4`, as `-o name` prints it, or `backend backend4`, as
//! it is said to the other commands.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};

/// What to wait on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    /// One backend.
    Backend(String),
    /// All enabled backends of a pool.
    Pool(String),
    /// One proxy.
    Proxy(String),
    /// The fleet.
    Proxies,
    /// A revision, on every live proxy.
    Revision(u64),
}

const ID: &str = "target";

impl Target {
    fn read(words: &[&str]) -> Result<Self, String> {
        let (kind, name) = match words {
            [kind, name] => (*kind, *name),
            [word] => word.split_once('/').unwrap_or((word, "")),
            _ => ("", ""),
        };
        match (kind, name) {
            ("proxies", "") => Ok(Self::Proxies),
            ("backend" | "backends", id) if !id.is_empty() => Ok(Self::Backend(id.to_owned())),
            ("pool" | "pools", name) if !name.is_empty() => Ok(Self::Pool(name.to_owned())),
            ("proxy" | "proxies", id) if !id.is_empty() => Ok(Self::Proxy(id.to_owned())),
            ("revision", number) if !number.is_empty() => number
                .parse()
                .map(Self::Revision)
                .map_err(|_| format!("{number:?} is not a number; write revision/118")),
            _ => {
                Err("write backend/ID, pool/NAME, proxy/ID, proxies, or revision/N; a space does \
                      as well as the slash"
                    .to_owned())
            }
        }
    }
}

impl FromArgMatches for Target {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let words = matches.get_many::<String>(ID).unwrap_or_default();
        let words: Vec<&str> = words.map(String::as_str).collect();
        Self::read(&words).map_err(|why| {
            let message = format!("invalid target '{}': {why}", words.join(" "));
            clap::Error::raw(ErrorKind::ValueValidation, message)
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Target {
    fn augment_args(command: Command) -> Command {
        let target = Arg::new(ID)
            .value_name("TARGET")
            .required(true)
            .num_args(1..=2)
            .help("backend/ID, pool/NAME, proxy/ID, proxies, or revision/N");
        command.arg(target)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_and_a_space_mean_the_same() {
        for (one, two) in [
            (["backend/b1"], ["backend", "b1"]),
            (["pools/web"], ["pool", "web"]),
            (["revision/118"], ["revision", "118"]),
        ] {
            assert_eq!(Target::read(&one).unwrap(), Target::read(&two).unwrap());
        }
        assert_eq!(Target::read(&["proxies"]), Ok(Target::Proxies));
        assert_eq!(Target::read(&["proxies", "p1"]), Ok(Target::Proxy("p1".to_owned())));
    }

    #[test]
    fn what_is_no_target_says_how_to_write_one() {
        for words in [&["backend"][..], &["b1"], &["backend/"], &["listener", "x"]] {
            assert!(Target::read(words).unwrap_err().contains("backend/ID"), "{words:?}");
        }
    }
}

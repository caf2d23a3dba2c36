//! When a key that was announced may sign.
//!
//! A proxy that does not know the key takes every session that it signs for a forgery. While
//! it is behind, that is a matter of moments. While it is *lost*, cut off from the control plane,
//! it may serve traffic all the same, by what it had last; then clients that come to it and to
//! others in turn would begin a session with each change. So no key signs by itself that a lost
//! proxy lacks. An operator who knows that the proxy is gone can say so, and one that has been
//! lost for as long as the control plane remembers it (a day) counts no more.
//!
//! A control plane that was restarted does not know who was lost before. It lets no key sign
//! by itself for as long as it would have remembered them; but it does when it is asked to.

/// What an operator has said about the key that was announced.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Consent {
    /// Nothing: it was announced because the former one is old.
    #[default]
    None,
    /// That it is to sign.
    Asked,
    /// That it is to sign although lost proxies lack it.
    Forced,
}

/// What is known of the proxies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Knowledge {
    /// So many that are connected lack the key.
    pub behind: usize,
    /// So many that are lost lack it.
    pub lost: usize,
    /// The control plane was restarted just now, and proxies are on their way back to it.
    pub is_awaited: bool,
    /// It was restarted so recently that others may have been lost before.
    pub may_be_more: bool,
}

/// Whether the key may sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// It may.
    Ready,
    /// In a moment, when the proxies have applied it.
    Soon,
    /// Not before the lost ones are back, or are forgotten, or an operator forces it.
    LackedByLost,
    /// Not before none can be left that the control plane has never heard of, or an operator
    /// asks for it.
    Unsure,
}

/// Whether a key may sign, by what is known and what was said.
#[must_use]
pub fn readiness(consent: Consent, known: Knowledge) -> Readiness {
    let Knowledge { behind, lost, is_awaited, may_be_more } = known;
    if behind > 0 || is_awaited {
        Readiness::Soon
    } else if lost > 0 && consent < Consent::Forced {
        Readiness::LackedByLost
    } else if may_be_more && consent < Consent::Asked {
        Readiness::Unsure
    } else {
        Readiness::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Consent; 3] = [Consent::None, Consent::Asked, Consent::Forced];

    fn by_consent(known: Knowledge) -> [Readiness; 3] {
        ALL.map(|consent| readiness(consent, known))
    }

    #[test]
    fn nobody_can_force_a_key_on_proxies_that_are_about_to_know_it() {
        for known in [
            Knowledge { behind: 1, ..Knowledge::default() },
            Knowledge { behind: 1, lost: 1, is_awaited: true, may_be_more: true },
            Knowledge { is_awaited: true, ..Knowledge::default() },
        ] {
            assert_eq!(by_consent(known), [Readiness::Soon; 3]);
        }
    }

    #[test]
    fn a_key_that_a_lost_proxy_lacks_signs_by_force_only() {
        use Readiness::{LackedByLost, Ready, Unsure};
        let lost = Knowledge { lost: 1, ..Knowledge::default() };
        assert_eq!(by_consent(lost), [LackedByLost, LackedByLost, Ready]);
        let restarted = Knowledge { may_be_more: true, ..Knowledge::default() };
        assert_eq!(by_consent(restarted), [Unsure, Ready, Ready]);
        let both = Knowledge { lost: 1, ..restarted };
        assert_eq!(by_consent(both), [LackedByLost, LackedByLost, Ready]);
        assert_eq!(by_consent(Knowledge::default()), [Ready; 3]);
    }
}

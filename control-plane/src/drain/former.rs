//! The proxies that were connected before this control plane was restarted, and their processes:
//! which of them may still be on their way back.

use std::collections::BTreeMap;

use lb_core::model::{InstanceId, ProxyId};

use crate::{fleet::ProxyView, store::Present};

/// What the process before this one had noted.
#[derive(Debug)]
pub(super) struct Former {
    proxies: Vec<ProxyId>,
    processes: BTreeMap<ProxyId, Vec<InstanceId>>,
}

impl Former {
    pub(super) fn new(noted: Present) -> Self {
        let mut processes = BTreeMap::<_, Vec<_>>::new();
        for (proxy, process) in noted.processes {
            processes.entry(proxy).or_default().push(process);
        }
        Self { proxies: noted.proxies, processes }
    }

    /// The proxies that were connected.
    pub(super) fn proxies(&self) -> &[ProxyId] {
        &self.proxies
    }

    /// Processes that may be there and are on their way back. `has_told` says whether one has told
    /// since what it has in flight: then that is looked at. `proxies` are in order of their ids.
    ///
    /// - A process that was noted may be there until its proxy has a process that took over from
    ///   nobody: two processes have one data directory only if the first hands it to the second.
    /// - A process that took over while no control plane was there to note it is named by its
    ///   successor, as the process that the successor replaced. If neither of these two was noted,
    ///   the replaced one came in such a time, and may still be there. So it seems also where the
    ///   control plane before this one was of a build that noted no processes.
    pub(super) fn away(
        &self,
        proxies: &[ProxyView],
        has_told: impl Fn(&ProxyId, &InstanceId) -> bool,
    ) -> Vec<(ProxyId, InstanceId)> {
        let mut away = Vec::new();
        let noted =
            self.processes.iter().flat_map(|(id, all)| all.iter().map(move |one| (id, one)));
        for (id, process) in noted {
            let view = proxies.binary_search_by_key(&id, |view| &view.info.id);
            let is_over = view.is_ok_and(|at| {
                let info = &proxies[at].info;
                info.instance == *process || info.replaces.is_empty()
            });
            if !is_over && !has_told(id, process) {
                away.push((id.clone(), process.clone()));
            }
        }
        for ProxyView { info, .. } in proxies {
            let Ok(replaced) = InstanceId::new(&info.replaces) else { continue };
            let mut noted = self.processes.get(&info.id).into_iter().flatten();
            let is_noted = noted.any(|process| [&info.instance, &replaced].contains(&process));
            if !is_noted && !has_told(&info.id, &replaced) {
                away.push((info.id.clone(), replaced));
            }
        }
        away
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::tests::view;

    fn process(text: &str) -> (ProxyId, InstanceId) {
        let (proxy, process) = text.split_once('/').unwrap();
        (ProxyId::new(proxy).unwrap(), InstanceId::new(process).unwrap())
    }

    /// Which of the noted processes may be on their way back, while these views are there, as
    /// `PROXY/INSTANCE` or `PROXY/INSTANCE<REPLACED`, and those have told.
    fn away(noted: &[&str], proxies: &[&str], told: &[&str]) -> Vec<String> {
        let processes = noted.iter().map(|text| process(text)).collect();
        let former = Former::new(Present { proxies: Vec::new(), processes });
        let views: Vec<ProxyView> = proxies
            .iter()
            .map(|text| {
                let (text, replaces) = text.split_once('<').unwrap_or((text, ""));
                let (proxy, instance) = process(text);
                view(proxy, instance, replaces)
            })
            .collect();
        let has_told = |id: &ProxyId, one: &InstanceId| {
            told.iter().any(|text| process(text) == (id.clone(), one.clone()))
        };
        let away = former.away(&views, has_told);
        away.iter().map(|(proxy, process)| format!("{proxy}/{process}")).collect()
    }

    #[test]
    fn a_process_that_was_taken_over_is_away_until_it_tells_what_it_has() {
        let noted = ["p/a", "p/b"];
        assert_eq!(away(&noted, &[], &[]), noted, "its proxy is not there");
        assert_eq!(away(&noted, &["p/b<a"], &[]), ["p/a"]);
        assert!(away(&noted, &["p/b<a"], &["p/a"]).is_empty());
        assert!(away(&["p/b"], &["p/b<a"], &[]).is_empty(), "it had ended before");
        assert!(away(&noted, &["p/c"], &[]).is_empty(), "it began when the others had ended");
    }

    #[test]
    fn those_that_took_over_while_nobody_was_there_are_away_too() {
        assert_eq!(away(&["p/a"], &["p/b<a"], &[]), ["p/a"]);
        assert_eq!(away(&["p/a"], &["p/c<b"], &[]), ["p/a", "p/b"]);
        assert_eq!(away(&["p/a"], &["p/c<b"], &["p/b"]), ["p/a"]);
        assert_eq!(away(&[], &["p/c<b", "q/d"], &[]), ["p/b"], "nothing is known of p");
    }
}

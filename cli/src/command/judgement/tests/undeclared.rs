//! Objects that a file of declared state does not name.

use super::*;

#[test]
fn what_a_file_does_not_name_is_told_as_advice_with_what_removes_it() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    let found = |facts: &Facts| judge(facts).into_iter().find(|f| f.check == "config_undeclared");
    assert_eq!(found(&facts), None);
    let objects = vec!["backend/backend2".to_owned(), "route/old".to_owned()];
    let path = "/etc/lb.toml".to_owned();
    facts.undeclared = Some(pb::UndeclaredObjects { path, count: 12, objects });
    let finding = found(&facts).unwrap();
    assert_eq!((finding.level, finding.is_trouble()), (Level::Warning, false));
    insta::assert_snapshot!(finding.message, @"12 objects are not in --config /etc/lb.toml and go on serving: backend/backend2, route/old and 10 more");
    insta::assert_snapshot!(finding.remedy.unwrap(), @"'lbctl diff --prune -f /etc/lb.toml' shows them, 'lbctl apply --prune -f /etc/lb.toml' removes them");
    facts.undeclared.as_mut().unwrap().count = 1;
    facts.undeclared.as_mut().unwrap().objects.pop();
    insta::assert_snapshot!(found(&facts).unwrap().message, @"1 object is not in --config /etc/lb.toml and goes on serving: backend/backend2");
}

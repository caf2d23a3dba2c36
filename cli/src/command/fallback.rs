//! What becomes of requests while a pool has no backend, on its way to the wire.

use lb_proto::v1 as pb;

use crate::{
    args::Fallback,
    exit::{Exit, Failure},
};

/// Takes a setting away.
const NONE: &str = "none";

/// Lays settings over a pool's fallback.
pub(super) fn edit_fallback(pool: &mut pb::Pool, settings: &Fallback) -> Result<(), Failure> {
    match settings.fallback_pool.as_deref() {
        Some(NONE) => pool.fallback_pool.clear(),
        Some(other) => other.clone_into(&mut pool.fallback_pool),
        None => {}
    }
    let Fallback { fallback_status, fallback_content_type, fallback_body, .. } = settings;
    if fallback_status.as_deref() == Some(NONE) {
        if fallback_content_type.is_some() || fallback_body.is_some() {
            return Err(Failure::new(
                Exit::Rejected,
                "--fallback-status none takes the answer away: leave --fallback-content-type and \
                 --fallback-body out, or name a status"
                    .to_owned(),
            ));
        }
        pool.fallback_answer = None;
        return Ok(());
    }
    if fallback_status.is_none() && fallback_content_type.is_none() && fallback_body.is_none() {
        return Ok(());
    }
    let answer = pool.fallback_answer.get_or_insert_default();
    if let Some(status) = fallback_status {
        answer.status = status.parse().map_err(|_| {
            let message = format!("--fallback-status {status}: write 200 to 599, or none");
            Failure::new(Exit::Rejected, message)
        })?;
    }
    if let Some(content_type) = fallback_content_type {
        answer.content_type.clone_from(content_type);
    }
    if let Some(body) = fallback_body {
        answer.body = body.clone().into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(mut pool: pb::Pool, settings: &[Option<&str>; 4]) -> Result<pb::Pool, Failure> {
        let [fallback_pool, fallback_status, fallback_content_type, fallback_body] =
            settings.map(|text| text.map(str::to_owned));
        let settings =
            Fallback { fallback_pool, fallback_status, fallback_content_type, fallback_body };
        edit_fallback(&mut pool, &settings).map(|()| pool)
    }

    #[test]
    fn what_is_not_named_stays_and_none_takes_away() {
        let given = [Some("spare"), Some("200"), None, Some("soon")];
        let pool = edited(pb::Pool::default(), &given).unwrap();
        let pool = edited(pool, &[None, None, None, Some("later")]).unwrap();
        let answer = pool.fallback_answer.clone().unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"later"[..]));
        assert_eq!(pool.fallback_pool, "spare");
        let pool = edited(pool, &[Some("none"), Some("none"), None, None]).unwrap();
        assert_eq!(pool, pb::Pool::default());
        for bad in [[None, Some("none"), None, Some("x")], [None, Some("ok"), None, None]] {
            assert_eq!(edited(pb::Pool::default(), &bad).unwrap_err().exit, Exit::Rejected);
        }
    }
}

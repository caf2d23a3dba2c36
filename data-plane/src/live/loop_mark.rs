//! What a request carries from one passage through this load balancer to the next.

use std::sync::Arc;

use lb_core::model::Epoch;

/// How often a request may pass: behind one listener there may be another, or two. One that comes
/// more often goes round in a circle: a backend leads back to this load balancer.
pub(crate) const PASSAGES_MAX: usize = 4;

/// The field that says so, and in it this load balancer, which all of its proxies are.
///
/// It is CDN-Loop (RFC 8586), which was made for this. Via would do as well, but tells servers to
/// answer otherwise: nginx, for one, compresses nothing for a proxy unless it is told to.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoopMark {
    /// The whole field with its end; nothing before there is a store, when nothing is forwarded.
    field: Arc<[u8]>,
}

const NAME: &[u8] = b"CDN-Loop: ";

impl LoopMark {
    /// The mark of the load balancer whose state is in this store.
    pub(crate) fn of(epoch: Epoch) -> Self {
        Self { field: [NAME, format!("lb-{epoch}\r\n").as_bytes()].concat().into() }
    }

    /// As it is written into a head.
    pub(crate) fn field(&self) -> &[u8] {
        &self.field
    }

    /// Whose mark it is.
    pub(crate) fn name(&self) -> &[u8] {
        self.field.strip_prefix(NAME).map_or(&[], <[u8]>::trim_ascii_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_field_with_a_name_of_the_store() {
        let mark = LoopMark::of(Epoch([0xab; 16]));
        assert_eq!(mark.field(), b"CDN-Loop: lb-abababab\r\n");
        assert_eq!(mark.name(), b"lb-abababab");
        assert_eq!(LoopMark::default().name(), b"");
    }
}

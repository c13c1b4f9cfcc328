//! What decorators that show the whole of another disk share: who they are, and what they stand on.

use nix::errno::Errno;
use reactor::Cx;
use uuid::Uuid;

use crate::traits::{BdevError, BdevInfo, Channel, SharedBdev};

/// An identity over another disk. Everything else, length and abilities, is at any moment what the base says, so that a base
/// that grows has grown for everybody above.
#[derive(Debug)]
pub(crate) struct Over {
    name: String,
    product_name: &'static str,
    uuid: Uuid,
    base: SharedBdev,
}

impl Over {
    pub(crate) fn new(
        name: String,
        product_name: &'static str,
        uuid: Uuid,
        base: SharedBdev,
    ) -> Result<Self, BdevError> {
        if name.is_empty() {
            return Err(BdevError::new(Errno::EINVAL, "a disk needs a name"));
        }
        Ok(Self {
            name,
            product_name,
            uuid,
            base,
        })
    }

    pub(crate) fn info(&self) -> BdevInfo {
        BdevInfo {
            name: self.name.clone(),
            product_name: self.product_name,
            uuid: self.uuid,
            ..self.base.info()
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.uuid
    }

    pub(crate) fn base(&self) -> &SharedBdev {
        &self.base
    }

    pub(crate) fn base_name(&self) -> String {
        self.base.info().name
    }

    /// Opens the base, counted: what goes through a decorator is seen in the base's numbers too.
    pub(crate) fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        crate::open(&self.base, cx)
    }
}

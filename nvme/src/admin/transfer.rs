//! Data of admin commands, between our buffers and the guest's PRPs.

use guest_memory::Access;
use nvme_spec::{Sqe, Status};

use crate::controller::Controller;
use crate::data::{PageSize, prp};

impl Controller {
    fn page_size(&self) -> PageSize {
        PageSize::from_mps(self.model.state.cc().mps())
    }

    /// Writes `data` to where the command wants it.
    pub(super) fn send_data(&self, sqe: &Sqe, data: &[u8]) -> Result<(), Status> {
        let (page, len) = (self.page_size(), data.len());
        let segments = prp::resolve(&self.view, page, sqe.dptr, len, Access::WRITE)
            .map_err(|error| error.status())?;
        segments.copy_from_slice(0, data);
        Ok(())
    }

    /// Reads `len` bytes that the command brings.
    pub(super) fn take_data(&self, sqe: &Sqe, len: usize) -> Result<Vec<u8>, Status> {
        let mut data = vec![0; len];
        let segments = prp::resolve(&self.view, self.page_size(), sqe.dptr, len, Access::READ)
            .map_err(|error| error.status())?;
        segments.copy_to_slice(0, &mut data);
        Ok(data)
    }
}

//! Command dwords: what a command carries beyond the common format.

mod admin;
mod nvm;

pub use admin::{
    AbortCdw10, CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, CreateSqCdw12, DeleteQueueCdw10,
    FeatureSelect, GetFeaturesCdw10, GetLogPageCdw10, GetLogPageCdw11, GetLogPageCdw14,
    IdentifyCdw10, IdentifyCdw11, QueuePriority, SetFeaturesCdw10, UuidIndexCdw14,
};
pub use nvm::{
    AccessFrequency, AccessLatency, ContextAttributes, CopyCdw12, CopyFormat, CopyRange0,
    CopyRange1, DirectiveType, DsmCdw10, DsmCdw11, DsmRange, ExpectedTagsCdw15, PrInfo, RwCdw12,
    RwCdw13,
};

#[cfg(test)]
mod tests;

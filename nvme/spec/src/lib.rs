//! `nvme-spec`

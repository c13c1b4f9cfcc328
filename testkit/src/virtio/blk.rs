//! Block requests in memory (VIRTIO 1.3, 5.2.6): header, data and status in any layout.

use virtio_spec::blk::{T_GET_ID, T_GET_LIFETIME, T_IN};

use super::Buffer;

/// Bytes of the header.
pub const HEADER: u32 = 16;

/// Whether the device writes the data of a request.
#[must_use]
pub fn is_read(kind: u32) -> bool {
    matches!(kind, T_IN | T_GET_ID | T_GET_LIFETIME)
}

/// The buffers of a request: what the device reads, and what it writes.
///
/// A device must not care how the bytes are spread over buffers (2.7.4.1), so a plain layout may be cut anywhere and joined where
/// buffers touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Header, and the data of a write.
    pub readable: Vec<Buffer>,
    /// The data of a read, and the status.
    pub writable: Vec<Buffer>,
}

impl Parts {
    /// Header, data and status, each in buffers of its own: what Linux sends.
    #[must_use]
    pub fn plain(kind: u32, header: u64, data: &[Buffer], status: u64) -> Self {
        let mut parts = Self::default();
        parts.set_plain(kind, header, data, status);
        parts
    }

    /// As [`Parts::plain`], into room that is there already.
    pub fn set_plain(&mut self, kind: u32, header: u64, data: &[Buffer], status: u64) {
        self.readable.clear();
        self.writable.clear();
        self.readable.push(Buffer {
            addr: header,
            len: HEADER,
        });
        if is_read(kind) {
            self.writable.extend_from_slice(data);
        } else {
            self.readable.extend_from_slice(data);
        }
        self.writable.push(Buffer {
            addr: status,
            len: 1,
        });
    }

    /// Cuts both halves at these offsets in bytes, counted from the beginning of each.
    pub fn cut(&mut self, offsets: &[u32]) {
        cut(&mut self.readable, offsets);
        cut(&mut self.writable, offsets);
    }

    /// Joins buffers that touch: header and data, data and status become one where they lie so.
    pub fn join(&mut self) {
        join(&mut self.readable);
        join(&mut self.writable);
    }

    /// Number of descriptors.
    #[must_use]
    pub fn count(&self) -> usize {
        self.readable.len() + self.writable.len()
    }
}

/// Cuts a list of buffers at offsets in bytes from its beginning.
pub fn cut(buffers: &mut Vec<Buffer>, offsets: &[u32]) {
    for &offset in offsets {
        let mut begin = 0u32;
        for at in 0..buffers.len() {
            let Buffer { addr, len } = buffers[at];
            let inside = offset.saturating_sub(begin);
            if inside > 0 && inside < len {
                buffers[at].len = inside;
                let rest = Buffer {
                    addr: addr + u64::from(inside),
                    len: len - inside,
                };
                buffers.insert(at + 1, rest);
                break;
            }
            begin = begin.saturating_add(len);
        }
    }
}

/// Joins buffers that touch.
pub fn join(buffers: &mut Vec<Buffer>) {
    buffers.dedup_by(|next, last| {
        let touches = last.addr + u64::from(last.len) == next.addr;
        if touches {
            last.len += next.len;
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use virtio_spec::blk::T_OUT;

    use super::*;

    fn buffer(addr: u64, len: u32) -> Buffer {
        Buffer { addr, len }
    }

    #[test]
    fn cuts_and_joins_keep_the_bytes() {
        let data = [buffer(116, 10), buffer(126, 6), buffer(500, 4)];
        let mut parts = Parts::plain(T_OUT, 100, &data, 900);
        assert_eq!(parts.count(), 5);
        parts.join();
        assert_eq!(parts.readable, [buffer(100, 32), buffer(500, 4)]);
        assert_eq!(parts.writable, [buffer(900, 1)]);
        parts.cut(&[1, 8, 32, 35, 99]);
        let expected = [(100, 1), (101, 7), (108, 24), (500, 3), (503, 1)];
        assert_eq!(
            parts.readable,
            expected.map(|(addr, len)| buffer(addr, len))
        );
        parts.join();
        assert_eq!(parts.readable, [buffer(100, 32), buffer(500, 4)]);
        let parts = Parts::plain(T_IN, 0, &data, 900);
        assert_eq!((parts.readable.len(), parts.writable.len()), (1, 4));
    }
}

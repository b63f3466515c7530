//! What was read from a pipe before anybody asked for it.
//!
//! To find the end of a line, more is read than the line. The rest stays with the pipe, so that the
//! next read gets it, of whatever kind it is and whoever owns the pipe by then.

use exile_os::Errno;

/// Bytes that were read and not yet returned, in order.
#[derive(Default)]
pub(crate) struct Ahead {
    bytes: Vec<u8>,
    /// Where the bytes begin that were not returned.
    from: usize,
    /// There is no newline before this index.
    searched: usize,
}

/// The next line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// All of its bytes are here: so many, and a newline.
    Whole(usize),
    /// Its end has not been read yet.
    Begun,
    /// It has more bytes than it may.
    TooLong,
}

impl Ahead {
    pub(crate) fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// The first bytes, at most `count`.
    pub(crate) fn first(&self, count: usize) -> &[u8] {
        &self.bytes[self.from..][..count.min(self.len())]
    }

    /// What comes after the first `count` bytes.
    pub(crate) fn beyond(&self, count: usize) -> &[u8] {
        &self.bytes[self.from..][count.min(self.len())..]
    }

    /// Takes the first bytes away, at most `count`.
    pub(crate) fn drop_first(&mut self, count: usize) {
        self.from += count.min(self.len());
        self.searched = self.searched.max(self.from);
    }

    /// Makes room for `count` more bytes, so that nothing that was read can be lost for want of memory.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), Errno> {
        self.bytes.drain(..self.from);
        self.searched -= self.from;
        self.from = 0;
        self.bytes.try_reserve(count).map_err(|_| Errno::ENOMEM)
    }

    /// Keeps `data`, for which there is room.
    pub(crate) fn keep(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// Returns the memory if nothing is in it.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Ahead::default();
        }
    }

    /// How far the next line goes, which may have `most` bytes.
    pub(crate) fn line(&mut self, most: usize) -> Line {
        let newline = self.bytes[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n');
        self.searched = newline.map_or(self.bytes.len(), |index| self.searched + index);
        match self.searched - self.from {
            length if length > most => Line::TooLong,
            length if newline.is_some() => Line::Whole(length),
            _ => Line::Begun,
        }
    }
}

//! Global memory: buffers far apart, each with what a kernel may do to it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Buffers start this far apart, so that no overrun lands in a neighbour.
const DISTANCE: u64 = 1 << 36;

/// What a kernel may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// An input: stores are reported.
    Read,
    /// An output: every byte has to be written, and none is read before.
    Write,
    /// What launches leave for each other: no byte is read before it is written.
    Scratch,
    /// Both: what was there before the launch is valid.
    ReadWrite,
}

impl Rights {
    /// Whether reading what nobody wrote is a mistake.
    pub(crate) fn starts_unwritten(self) -> bool {
        matches!(self, Rights::Write | Rights::Scratch)
    }
}

/// A buffer of a [`Memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(pub(crate) usize);

/// The bytes of one buffer. They are kept in atomic words, because blocks run on several cores.
pub(crate) struct Storage {
    pub name: String,
    pub rights: Rights,
    /// Where the bytes start in `words`: the misalignment that was asked for.
    pub offset: u64,
    pub bytes: u64,
    words: Vec<AtomicU64>,
    /// A bit for each byte of `words` that earlier launches wrote; empty where that does not matter.
    written: Vec<AtomicU8>,
}

impl Clone for Storage {
    fn clone(&self) -> Self {
        let words = self.words.iter().map(|w| AtomicU64::new(w.load(Relaxed))).collect();
        let written = self.written.iter().map(|w| AtomicU8::new(w.load(Relaxed))).collect();
        Self { name: self.name.clone(), words, written, ..*self }
    }
}

impl Storage {
    pub(crate) fn new(name: &str, bytes: &[u8], rights: Rights, offset: u64) -> Self {
        let mut padded = vec![0; offset as usize];
        padded.extend_from_slice(bytes);
        padded.resize(padded.len().next_multiple_of(8), 0);
        let words = padded.chunks_exact(8).map(|w| AtomicU64::new(u64::from_le_bytes(w.try_into().expect("8 bytes"))));
        let words: Vec<AtomicU64> = words.collect();
        let noted = if rights.starts_unwritten() { words.len() } else { 0 };
        let written = (0..noted).map(|_| AtomicU8::new(0)).collect();
        Self { name: name.into(), rights, offset, bytes: bytes.len() as u64, words, written }
    }

    /// Notes that a launch has written bytes, for those that follow.
    pub(crate) fn mark_written(&self, bytes: std::ops::Range<u64>) {
        for at in bytes {
            if let Some(word) = self.written.get((at / 8) as usize) {
                word.fetch_or(1 << (at % 8), Relaxed);
            }
        }
    }

    /// Whether earlier launches wrote all of these bytes.
    pub(crate) fn was_written(&self, bytes: std::ops::Range<u64>) -> bool {
        let written =
            |at: u64| self.written.get((at / 8) as usize).is_some_and(|w| w.load(Relaxed) >> (at % 8) & 1 != 0);
        bytes.into_iter().all(written)
    }

    pub(crate) fn contents(&self) -> Vec<u8> {
        let all: Vec<u8> = self.words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
        all[self.offset as usize..(self.offset + self.bytes) as usize].to_vec()
    }

    /// The element of `bytes` (a power of two up to 8) at `at`, which is a multiple of it.
    #[inline]
    pub(crate) fn load(&self, at: u64, bytes: u32) -> u64 {
        let word = self.words[(at / 8) as usize].load(Relaxed);
        word >> (8 * (at % 8)) & mask(bytes)
    }

    #[inline]
    pub(crate) fn store(&self, at: u64, bytes: u32, value: u64) {
        if bytes == 8 {
            self.words[(at / 8) as usize].store(value, Relaxed);
        } else {
            self.update(at, bytes, |_| value);
        }
    }

    /// Replaces an element by `new(old)` in one step and returns the old one.
    pub(crate) fn update(&self, at: u64, bytes: u32, new: impl Fn(u64) -> u64) -> u64 {
        let (word, shift, mask) = (&self.words[(at / 8) as usize], 8 * (at % 8), mask(bytes));
        let mut old = word.load(Relaxed);
        loop {
            let element = old >> shift & mask;
            let next = old & !(mask << shift) | (new(element) & mask) << shift;
            match word.compare_exchange_weak(old, next, Relaxed, Relaxed) {
                Ok(_) => return element,
                Err(now) => old = now,
            }
        }
    }
}

fn mask(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}

/// The buffers that kernels work on.
///
/// ```
/// use isonorm_ptx::{Memory, Rights};
/// let mut memory = Memory::new();
/// let x = memory.add("x", &[1, 2, 3, 4], Rights::Read);
/// let y = memory.add("y", &[0; 4], Rights::Write);
/// assert!(memory.address(y) - memory.address(x) > 1 << 32);
/// assert_eq!(memory.bytes(x), [1, 2, 3, 4]);
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    pub(crate) buffers: Vec<Storage>,
}

impl Memory {
    /// No buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies `bytes` into a new buffer. `name` stands in findings and counters. The address is a multiple of 2^36.
    pub fn add(&mut self, name: &str, bytes: &[u8], rights: Rights) -> Buffer {
        self.add_at(name, bytes, rights, 0)
    }

    /// As [`Memory::add`], `offset` bytes (at most 4096) behind an aligned address.
    ///
    /// # Panics
    /// If `offset` is greater than 4096.
    pub fn add_at(&mut self, name: &str, bytes: &[u8], rights: Rights, offset: u64) -> Buffer {
        assert!(offset <= 4096, "an offset of {offset} bytes: at most 4096 are possible");
        self.buffers.push(Storage::new(name, bytes, rights, offset));
        Buffer(self.buffers.len() - 1)
    }

    /// The device address of the buffer's first byte.
    pub fn address(&self, buffer: Buffer) -> u64 {
        base(buffer.0) + self.buffers[buffer.0].offset
    }

    /// What the buffer holds now.
    pub fn bytes(&self, buffer: Buffer) -> Vec<u8> {
        self.buffers[buffer.0].contents()
    }
}

fn base(index: usize) -> u64 {
    (index as u64 + 1) * DISTANCE
}

/// The buffer whose range has `address`, and the place in it; the place may be out of the buffer's bounds.
#[inline]
pub(crate) fn place(address: u64) -> Option<(usize, u64)> {
    let index = (address / DISTANCE) as usize;
    (index > 0).then(|| (index - 1, address % DISTANCE))
}

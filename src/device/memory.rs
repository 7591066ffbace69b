//! Words in a device's memory, as the host reads and writes them.

use super::ptr::Ptr;
use super::slot::{Dtype, Slot};
use super::{Device, cpu, cuda};
use anyhow::Result;
use std::borrow::Cow;

/// A buffer of 32-bit words on a device.
pub enum Buffer {
    Cpu(cpu::Buffer),
    Cuda(cuda::Buffer),
}

impl Buffer {
    /// Reserves `words` words: zeros on the CPU, undefined on a GPU.
    ///
    /// # Errors
    /// Out of memory (exit 4) with the bytes asked.
    pub fn new(device: &Device, words: usize) -> Result<Self> {
        Ok(match device {
            Device::Cpu(_) => Buffer::Cpu(cpu::buffer(words)?),
            Device::Cuda { cuda, .. } => Buffer::Cuda(cuda.buffer(words)?),
        })
    }

    /// A buffer that holds `words`.
    ///
    /// # Errors
    /// Out of memory, and what the driver says (exit 4).
    pub fn of(device: &Device, words: &[f32]) -> Result<Self> {
        let mut buffer = Self::new(device, words.len())?;
        buffer.write(0, words)?;
        Ok(buffer)
    }

    /// Copies `words` to word `at` and on.
    ///
    /// # Errors
    /// Device (exit 4): what the driver says.
    pub fn write(&mut self, at: usize, words: &[f32]) -> Result<()> {
        match self {
            Buffer::Cpu(b) => b.as_mut_slice()[at..at + words.len()].copy_from_slice(words),
            Buffer::Cuda(b) => b.write(at, words)?,
        }
        Ok(())
    }

    /// `len` words from word `at` on, after everything queued.
    ///
    /// # Errors
    /// Device (exit 4): also what went wrong in a kernel before.
    pub fn read(&self, at: usize, len: usize) -> Result<Cow<'_, [f32]>> {
        Ok(match self {
            Buffer::Cpu(b) => Cow::Borrowed(&b.as_slice()[at..at + len]),
            Buffer::Cuda(b) => Cow::Owned(b.read(at, len)?),
        })
    }

    /// As [`Buffer::write`], a whole float32 arena slot or its beginning.
    pub fn put(&mut self, s: Slot, words: &[f32]) -> Result<()> {
        assert!(s.dtype == Dtype::F32, "float32 values for {s:?}");
        assert!(words.len() <= s.len, "{} words for a slot of {}", words.len(), s.len);
        self.write(s.offset, words)
    }

    /// As [`Buffer::read`], a float32 arena slot.
    pub fn get(&self, s: Slot) -> Result<Cow<'_, [f32]>> {
        assert!(s.dtype == Dtype::F32, "float32 values of {s:?}");
        self.read(s.offset, s.len)
    }

    /// The words of the CPU device.
    ///
    /// # Panics
    /// On another device: callers have matched on it.
    pub fn cpu(&self) -> &[f32] {
        match self {
            Buffer::Cpu(b) => b.as_slice(),
            Buffer::Cuda(_) => unreachable!("a GPU's buffer on the CPU device"),
        }
    }

    /// As [`Buffer::cpu`], to write.
    pub fn cpu_mut(&mut self) -> &mut [f32] {
        match self {
            Buffer::Cpu(b) => b.as_mut_slice(),
            Buffer::Cuda(_) => unreachable!("a GPU's buffer on the CPU device"),
        }
    }

    /// The address on the GPU.
    ///
    /// # Panics
    /// On another device: callers have matched on it.
    pub fn address(&self) -> u64 {
        match self {
            Buffer::Cuda(b) => b.address(),
            Buffer::Cpu(_) => unreachable!("the CPU device's buffer on a GPU"),
        }
    }
}

impl From<&Buffer> for Ptr {
    fn from(b: &Buffer) -> Self {
        Ptr::Address(b.address())
    }
}

/// Bytes of finished images, where they were computed.
pub enum Pixels<'a> {
    Host(Cow<'a, [u8]>),
    /// The first `len` bytes of a buffer on a GPU.
    Gpu {
        buffer: &'a cuda::Buffer,
        len: usize,
    },
}

impl Pixels<'_> {
    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            Pixels::Host(pixels) => pixels.len(),
            Pixels::Gpu { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    ///
    /// # Errors
    /// Device (exit 4): also what went wrong in a kernel before.
    pub fn to_host(&self) -> Result<Cow<'_, [u8]>> {
        self.first(self.len())
    }

    /// The first `len`, or all where there are fewer.
    ///
    /// # Errors
    /// As [`Pixels::to_host`].
    pub fn first(&self, len: usize) -> Result<Cow<'_, [u8]>> {
        let len = len.min(self.len());
        Ok(match self {
            Pixels::Host(pixels) => Cow::Borrowed(&pixels[..len]),
            Pixels::Gpu { buffer, .. } => Cow::Owned(buffer.read_bytes(len)?),
        })
    }
}

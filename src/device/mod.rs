//! Where the arithmetic happens.

pub mod cpu;

pub use cpu::Cpu;

/// A device that ops lower themselves to.
#[derive(Clone)]
pub enum Device {
    Cpu(Cpu),
}

//! Which generation of results a run is of: a number for each kind of device, raised whenever its results may change.

use crate::device::Device;
use crate::error::usage;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Of this version.
const CPU: u32 = 2;
const CUDA: u32 = 4;

/// The generation that a run was trained in, on each kind of device that it was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Numerics {
    pub cpu: Option<u32>,
    pub cuda: Option<u32>,
    /// From before the kinds were told apart: one number, of a device that nobody wrote down.
    either: bool,
}

/// As files have it: one number for both in those from before the kinds were told apart.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Stored {
    Both(u32),
    Each {
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cuda: Option<u32>,
    },
}

impl From<Numerics> for Stored {
    fn from(numerics: Numerics) -> Self {
        match numerics {
            Numerics { cpu: Some(n), either: true, .. } => Stored::Both(n),
            Numerics { cpu, cuda, .. } => Stored::Each { cpu, cuda },
        }
    }
}

impl From<Stored> for Numerics {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Both(n) => Numerics { cpu: Some(n), cuda: Some(n), either: true },
            Stored::Each { cpu, cuda } => Numerics { cpu, cuda, either: false },
        }
    }
}

impl Numerics {
    /// Of a run that begins on a device now.
    pub fn of(device: &Device) -> Self {
        match device {
            Device::Cpu(_) => Numerics { cpu: Some(CPU), ..Numerics::default() },
            Device::Cuda { .. } => Numerics { cuda: Some(CUDA), ..Numerics::default() },
        }
    }

    /// These, and those of a run that goes on on `device`.
    ///
    /// # Errors
    /// Usage: it was trained there by a version whose results differ.
    pub fn resume(self, device: &Device) -> Result<Self> {
        let now = Numerics::of(device);
        let differ = |ours: Option<u32>, now: Option<u32>| ours.zip(now).filter(|(a, b)| a != b);
        if let Some((ours, now)) = differ(self.cpu, now.cpu).or(differ(self.cuda, now.cuda)) {
            return Err(usage(format!(
                "--run: trained with numerics {ours}, this version computes with numerics {now}; finish it with the version \
                 that began it, or choose another --run"
            )));
        }
        let both = Numerics { cpu: self.cpu.or(now.cpu), cuda: self.cuda.or(now.cuda), ..now };
        Ok(if self.either { now } else { both })
    }

    /// Why this version on a CPU need not give such a run's bits, if it need not. Where nobody wrote down on what it was trained,
    /// it is given the benefit of the doubt.
    pub fn incomparable(self) -> Option<String> {
        match self {
            Numerics { cuda: Some(_), either: false, .. } => Some(
                "trained on a GPU, whose bits only the same kind of GPU gives again".to_string(),
            ),
            Numerics { cpu: Some(n), .. } if n != CPU => Some(format!(
                "trained with numerics {n}, this version computes with numerics {CPU}; verify it with the version that trained it"
            )),
            _ => None,
        }
    }

    /// What marks a run that this version would not compute alike: the number that it was trained with. Where nobody wrote
    /// down on what, it is given the benefit of the doubt.
    pub fn older(self) -> Option<u32> {
        let other = |ours: Option<u32>, now: u32| ours.filter(|&n| n != now);
        let (cpu, cuda) = (other(self.cpu, CPU), other(self.cuda, CUDA));
        if self.either { cpu.and(cuda) } else { cpu.or(cuda) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;

    #[test]
    fn each_kind_of_device_has_its_own() {
        let read = |text: &str| serde_json::from_str::<Numerics>(text).unwrap();
        let both = read("2");
        assert_eq!((both.cpu, both.cuda, both.older()), (Some(2), Some(2), None));
        assert_eq!(read("1").older(), Some(1));
        assert_eq!(serde_json::to_string(&both).unwrap(), "2");
        let cpu = Device::Cpu(Cpu::new(1).unwrap());
        assert_eq!(both.resume(&cpu).unwrap(), Numerics::of(&cpu));
        assert!(serde_json::from_str::<Numerics>(r#"{"gpu": 2}"#).is_err());
        let elsewhere = read(r#"{"cuda": 4}"#);
        assert_eq!(elsewhere.resume(&cpu).unwrap(), read(r#"{"cpu": 2, "cuda": 4}"#));
        assert!(elsewhere.incomparable().unwrap().contains("GPU"));
        assert!(read("1").incomparable().unwrap().contains("numerics 1, this"));
        assert_eq!((both.incomparable(), Numerics::of(&cpu).incomparable()), (None, None));
        assert_eq!((elsewhere.older(), read(r#"{"cuda": 2}"#).older()), (None, Some(2)));
        let old = read(r#"{"cpu": 1, "cuda": 4}"#);
        assert_eq!(old.older(), Some(1));
        let error = old.resume(&cpu).unwrap_err().to_string();
        assert!(error.starts_with("--run: trained with numerics 1, this version"), "{error}");
        assert_eq!(serde_json::to_string(&Numerics::of(&cpu)).unwrap(), r#"{"cpu":2}"#);
    }
}

//! What `--device` may name: one device, or for commands that do several runs at once several GPUs.

use crate::error::usage;
use anyhow::Result;

/// What `--device` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The first GPU where one can be used, else the CPU.
    Auto,
    Cpu,
    /// These, as the driver counts them, each once.
    Gpus(Vec<usize>),
    /// All that the driver sees.
    AllGpus,
}

/// What `--device` names where one device is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum One {
    Auto,
    Cpu,
    Gpu(usize),
}

/// A range of more GPUs than this is no machine's.
const LONGEST_RANGE: usize = 1024;

impl Named {
    /// Reads the flag's value: `auto`, `cpu`, `cuda`, `cuda:all`, or `cuda:` and a list of numbers and ranges.
    ///
    /// # Errors
    /// Usage: none of these; a range that descends; a GPU that is named twice.
    pub fn of(text: &str) -> Result<Named> {
        let none = || {
            usage(format!(
                "--device: {text:?} is none of auto, cpu, cuda, cuda:K, cuda:K,L, cuda:A-B, cuda:all"
            ))
        };
        let list = match text {
            "auto" => return Ok(Named::Auto),
            "cpu" => return Ok(Named::Cpu),
            "cuda" => return Ok(Named::Gpus(vec![0])),
            "cuda:all" => return Ok(Named::AllGpus),
            _ => text.strip_prefix("cuda:").ok_or_else(none)?,
        };
        // `+1` is a number to Rust, and no GPU to anybody else.
        let number = |digits: &str| match digits.chars().all(|c| c.is_ascii_digit()) {
            true => digits.parse::<usize>().map_err(|_| none()),
            false => Err(none()),
        };
        let mut gpus = Vec::new();
        for item in list.split(',') {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(item)?, number(item)?),
            };
            if first > last {
                let right = format!("{last}-{first}");
                return Err(usage(format!("--device: {text}: {item} descends, {right} is meant")));
            }
            if last - first >= LONGEST_RANGE {
                return Err(usage(format!("--device: {text}: no machine has so many GPUs")));
            }
            for k in first..=last {
                if gpus.contains(&k) {
                    return Err(usage(format!("--device: {text} names GPU {k} twice")));
                }
                gpus.push(k);
            }
        }
        Ok(Named::Gpus(gpus))
    }

    /// The one device; `text` is the flag's value.
    ///
    /// # Errors
    /// Usage: it names several, or as many as there are.
    pub fn one(self, text: &str) -> Result<One> {
        match self {
            Named::Auto => Ok(One::Auto),
            Named::Cpu => Ok(One::Cpu),
            Named::Gpus(gpus) if gpus.len() == 1 => Ok(One::Gpu(gpus[0])),
            Named::Gpus(_) | Named::AllGpus => Err(usage(format!(
                "--device: {text}: this command uses one device, such as cuda:0; `emm sweep run` and `emm find` take several"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_or_a_list_of_gpus_is_read() {
        let gpus = |list: &[usize]| Named::Gpus(list.to_vec());
        for (text, named) in [
            ("auto", Named::Auto),
            ("cpu", Named::Cpu),
            ("cuda", gpus(&[0])),
            ("cuda:7", gpus(&[7])),
            ("cuda:0,1,2", gpus(&[0, 1, 2])),
            ("cuda:3,1", gpus(&[3, 1])),
            ("cuda:0-7", gpus(&[0, 1, 2, 3, 4, 5, 6, 7])),
            ("cuda:0,2-3", gpus(&[0, 2, 3])),
            ("cuda:2-2", gpus(&[2])),
            ("cuda:all", Named::AllGpus),
        ] {
            assert_eq!(Named::of(text).unwrap(), named, "{text}");
        }
    }

    #[test]
    fn what_names_no_devices_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("", "is none of"),
            ("gpu", "is none of"),
            ("cuda:", "is none of"),
            ("cuda0", "is none of"),
            ("cuda:x", "is none of"),
            ("cuda:-1", "is none of"),
            ("cuda:+1", "is none of"),
            ("cuda:0,", "is none of"),
            ("cuda:0,,1", "is none of"),
            ("cuda:0 1", "is none of"),
            ("cuda:0-", "is none of"),
            ("cuda:0-1-2", "is none of"),
            ("cuda:all,0", "is none of"),
            ("cuda:99999999999999999999", "is none of"),
            ("cpu,cuda:0", "is none of"),
            ("cuda:0,0", "names GPU 0 twice"),
            ("cuda:0-2,1", "names GPU 1 twice"),
            ("cuda:3-1", "3-1 descends, 1-3 is meant"),
            ("cuda:0-99999999999", "no machine has so many"),
        ] {
            let said = Named::of(text).unwrap_err().to_string();
            assert!(said.starts_with("--device: ") && said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn commands_of_one_device_refuse_several() {
        let one = |text: &str| Named::of(text).unwrap().one(text);
        assert_eq!(one("auto").unwrap(), One::Auto);
        assert_eq!(one("cpu").unwrap(), One::Cpu);
        assert_eq!(one("cuda:2").unwrap(), One::Gpu(2));
        for several in ["cuda:0,1", "cuda:0-1", "cuda:all"] {
            let said = one(several).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("--device: {several}: this command uses one device"))
            );
        }
    }
}

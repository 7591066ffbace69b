//! Reads Python's pickles as data: nothing is called or imported, nothing nests on the stack, and a value that is used
//! twice is there once.
//!
//! Source: the operations of Python's pickletools, protocols 0 to 5, but for those of sets and of buffers out of band.

use crate::error::{OrExit as _, data};
use crate::memory::Budget;
use anyhow::{Result, anyhow, bail, ensure};
use std::collections::HashMap;

/// Operations of one pickle: a batch of CIFAR-10 has about 60,000.
const MAX_STEPS: usize = 4 << 20;
/// Memory that an operation may take: a value and its place among others.
const STEP_BYTES: u64 = 128;
/// Operations announced at a time.
const ANNOUNCED: usize = 1 << 13;

/// A value's place in [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(u32);

#[derive(Debug)]
pub enum PickleValue<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// Bytes, or a text's UTF-8.
    Bytes(&'a [u8]),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// The name of something in a module, which is not looked up.
    Global(&'a [u8]),
    /// What a call would give: what is called, its arguments, and the state that is set afterwards.
    Object {
        class: Id,
        args: Id,
        state: Option<Id>,
    },
    /// A number of floating point or with more than 64 bits.
    Other,
}

/// All values of a pickle.
pub struct Pickle<'a> {
    values: Vec<PickleValue<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle that takes all of `bytes`.
    ///
    /// # Errors
    /// Data errors that begin with `what`: broken, or an operation that is not known. Over the budget (exit 4).
    pub fn read(bytes: &'a [u8], budget: &Budget, what: &dyn Fn() -> String) -> Result<Self> {
        let mut reader = PickleReader {
            rest: bytes,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let mut spent = budget.borrow(0, what)?;
        for _ in 0..MAX_STEPS / ANNOUNCED {
            spent.grow(ANNOUNCED as u64 * STEP_BYTES, what)?;
            if let Some(root) =
                reader.run(ANNOUNCED).or_data(|| what() + ": not a readable pickle")?
            {
                return Ok(Pickle { values: reader.values, root });
            }
        }
        Err(data(format!("{}: a pickle of more than {MAX_STEPS} operations", what())))
    }

    /// What was pickled.
    pub fn root(&self) -> Id {
        self.root
    }

    pub fn value(&self, id: Id) -> &PickleValue<'a> {
        &self.values[id.0 as usize]
    }

    /// The value of a dict's key of ASCII; the last, if it is there twice.
    pub fn get(&self, dict: Id, key: &str) -> Option<Id> {
        let PickleValue::Dict(pairs) = self.value(dict) else { return None };
        let is = |id: Id| match self.object(id) {
            // How Python 3 writes bytes in protocols that have only text.
            Some((b"encode", &[text, ..], None)) => self.bytes(text),
            _ => self.bytes(id),
        };
        let found = pairs.iter().rfind(|(k, _)| is(*k) == Some(key.as_bytes()));
        found.map(|&(_, value)| value)
    }

    pub fn bytes(&self, id: Id) -> Option<&'a [u8]> {
        match self.value(id) {
            PickleValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            PickleValue::Int(int) => Some(*int),
            _ => None,
        }
    }

    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            PickleValue::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Name of what an object was made by, its arguments and its state.
    pub fn object(&self, id: Id) -> Option<(&'a [u8], &[Id], Option<Id>)> {
        let &PickleValue::Object { class, args, state } = self.value(id) else { return None };
        let &PickleValue::Global(name) = self.value(class) else { return None };
        Some((name, self.tuple(args)?, state))
    }
}

struct PickleReader<'a> {
    rest: &'a [u8],
    values: Vec<PickleValue<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack where marks stand.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> PickleReader<'a> {
    /// Takes so many operations; the root, where the last one was among them.
    fn run(&mut self, operations: usize) -> Result<Option<Id>> {
        for _ in 0..operations {
            let operation = self.take(1)?[0];
            if operation == b'.' {
                ensure!(self.rest.is_empty(), "{} bytes behind its end", self.rest.len());
                return self.pop().map(Some);
            }
            self.step(operation)?;
        }
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| anyhow!("cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A little-endian unsigned number of `len` bytes.
    fn number(&mut self, len: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// As many bytes as a number of `len` bytes says.
    fn counted(&mut self, len: usize) -> Result<&'a [u8]> {
        let count = self.number(len)?;
        self.take(usize::try_from(count)?)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let len = self.rest.iter().position(|&b| b == b'\n').ok_or_else(|| anyhow!("cut off"))?;
        Ok(&self.take(len + 1)?[..len])
    }

    fn decimal(&mut self) -> Result<i64> {
        let line = std::str::from_utf8(self.line()?)?;
        Ok(line.strip_suffix('L').unwrap_or(line).parse()?)
    }

    fn push(&mut self, value: PickleValue<'a>) {
        // At most MAX_STEPS of them.
        self.stack.push(Id(self.values.len() as u32));
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        ensure!(self.stack.len() > floor, "a value is missing");
        Ok(self.stack.pop().expect("above the floor"))
    }

    /// Takes everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| anyhow!("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_all(&mut self, count: usize) -> Result<Vec<Id>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    /// Under what an operation keeps or takes a value: a line, a byte or four.
    fn key(&mut self, operation: u8) -> Result<u64> {
        match operation {
            b'p' | b'g' => Ok(self.decimal()? as u64),
            b'q' | b'h' => self.number(1),
            _ => self.number(4),
        }
    }

    fn memoize(&mut self, key: u64) -> Result<()> {
        let value = self.pop()?;
        self.memo.insert(key, value);
        self.stack.push(value);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let value =
            *self.memo.get(&key).ok_or_else(|| anyhow!("no value {key} to come back to"))?;
        self.stack.push(value);
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.pop()?;
        self.stack.push(list);
        match &mut self.values[list.0 as usize] {
            PickleValue::List(all) => all.extend(items),
            _ => bail!("items for what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<()> {
        let dict = self.pop()?;
        self.stack.push(dict);
        let pairs = pairs_of(&items)?;
        match &mut self.values[dict.0 as usize] {
            PickleValue::Dict(all) => all.extend(pairs),
            _ => bail!("keys for what is no dict"),
        }
        Ok(())
    }

    fn step(&mut self, operation: u8) -> Result<()> {
        match operation {
            0x80 => _ = self.take(1)?, // protocol
            0x95 => _ = self.take(8)?, // frame
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_mark()?,
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([top, top]);
            }
            b'p' | b'q' | b'r' => {
                let key = self.key(operation)?;
                self.memoize(key)?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'g' | b'h' | b'j' => {
                let key = self.key(operation)?;
                self.recall(key)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b's' => {
                let pair = self.pop_all(2)?;
                self.set_items(pair)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(items)?;
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.pop()?;
                self.stack.push(object);
                match &mut self.values[object.0 as usize] {
                    PickleValue::Object { state: old, .. } => *old = Some(state),
                    _ => bail!("a state for what is no object"),
                }
            }
            _ => {
                let value = self.make(operation)?;
                self.push(value);
            }
        }
        Ok(())
    }

    /// The value of an operation that makes one.
    fn make(&mut self, operation: u8) -> Result<PickleValue<'a>> {
        Ok(match operation {
            b'N' => PickleValue::None,
            0x88 | 0x89 => PickleValue::Bool(operation == 0x88),
            b'I' => match self.line()? {
                b"00" => PickleValue::Bool(false),
                b"01" => PickleValue::Bool(true),
                line => PickleValue::Int(std::str::from_utf8(line)?.parse()?),
            },
            b'L' => PickleValue::Int(self.decimal()?),
            b'J' => PickleValue::Int((self.number(4)? as u32 as i32).into()),
            b'K' => PickleValue::Int(self.number(1)? as i64),
            b'M' => PickleValue::Int(self.number(2)? as i64),
            0x8A => long(self.counted(1)?),
            0x8B => long(self.counted(4)?),
            b'F' => self.line().map(|_| PickleValue::Other)?,
            b'G' => self.take(8).map(|_| PickleValue::Other)?,
            b'U' | b'C' | 0x8C => PickleValue::Bytes(self.counted(1)?),
            b'T' | b'B' | b'X' => PickleValue::Bytes(self.counted(4)?),
            0x8D | 0x8E | 0x96 => PickleValue::Bytes(self.counted(8)?),
            b'V' | b'S' => {
                let line = self.line()?;
                ensure!(
                    !line.contains(&b'\\'),
                    "a text with escapes; protocols from 1 on have none"
                );
                let quoted = operation == b'S' && line.len() >= 2;
                PickleValue::Bytes(if quoted { &line[1..line.len() - 1] } else { line })
            }
            b')' => PickleValue::Tuple(Vec::new()),
            b't' => PickleValue::Tuple(self.pop_mark()?),
            0x85..=0x87 => PickleValue::Tuple(self.pop_all((operation - 0x84).into())?),
            b']' => PickleValue::List(Vec::new()),
            b'l' => PickleValue::List(self.pop_mark()?),
            b'}' => PickleValue::Dict(Vec::new()),
            b'd' => PickleValue::Dict(pairs_of(&self.pop_mark()?)?),
            b'c' => {
                let _module = self.line()?;
                PickleValue::Global(self.line()?)
            }
            0x93 => {
                let names = self.pop_all(2)?;
                match [names[0], names[1]].map(|id| &self.values[id.0 as usize]) {
                    [&PickleValue::Bytes(_), &PickleValue::Bytes(name)] => {
                        PickleValue::Global(name)
                    }
                    _ => bail!("a name that is no text"),
                }
            }
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                PickleValue::Object { class, args, state: None }
            }
            _ => bail!("operation {operation:#04x} is not known here"),
        })
    }
}

/// Keys and values that stand one after the other.
fn pairs_of(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    ensure!(rest.is_empty(), "a key without a value");
    Ok(pairs.iter().map(|&[k, v]| (k, v)).collect())
}

/// A little-endian signed number of any length.
fn long(bytes: &[u8]) -> PickleValue<'static> {
    let Some(&last) = bytes.last() else { return PickleValue::Int(0) };
    let mut wide = [if last & 0x80 != 0 { 0xFF } else { 0 }; 8];
    match wide.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return PickleValue::Other,
    }
    PickleValue::Int(i64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle<'_>> {
        Pickle::read(bytes, &Budget::of(1 << 30), &|| "x".into())
    }

    #[test]
    fn what_python_writes_in_every_protocol_reads_the_same() {
        // pickle.dumps({'a': [1, 300, -70000, True, None, 2.5, (b'x', 1 << 40)]}, protocol)
        let pickles: [&[u8]; 4] = [
            b"(dp0\nVa\np1\n(lp2\nI1\naI300\naI-70000\naI01\naNaF2.5\na(c_codecs\nencode\np3\n(Vx\np4\nVlatin1\np5\n\
              tp6\nRp7\nL1099511627776L\ntp8\nas.",
            b"}q\0X\x01\0\0\0aq\x01]q\x02(K\x01M,\x01J\x90\xee\xfe\xffI01\nNG@\x04\0\0\0\0\0\0(c_codecs\nencode\nq\x03\
              (X\x01\0\0\0xq\x04X\x06\0\0\0latin1q\x05tq\x06Rq\x07L1099511627776L\ntq\x08es.",
            b"\x80\x02}q\0X\x01\0\0\0aq\x01]q\x02(K\x01M,\x01J\x90\xee\xfe\xff\x88NG@\x04\0\0\0\0\0\0c_codecs\nencode\n\
              q\x03X\x01\0\0\0xq\x04X\x06\0\0\0latin1q\x05\x86q\x06Rq\x07\x8a\x06\0\0\0\0\0\x01\x86q\x08es.",
            b"\x80\x04\x95/\0\0\0\0\0\0\0}\x94\x8c\x01a\x94]\x94(K\x01M,\x01J\x90\xee\xfe\xff\x88NG@\x04\0\0\0\0\0\0C\x01x\
              \x94\x8a\x06\0\0\0\0\0\x01\x86\x94es.",
        ];
        for (i, bytes) in pickles.into_iter().enumerate() {
            let p = read(bytes).unwrap_or_else(|e| panic!("{i}: {e}"));
            let PickleValue::List(items) = p.value(p.get(p.root(), "a").unwrap()) else {
                panic!("{i}")
            };
            let ints: Vec<_> = items[..3].iter().map(|&id| p.int(id)).collect();
            assert_eq!(ints, [Some(1), Some(300), Some(-70000)], "{i}");
            assert!(matches!(p.value(items[3]), PickleValue::Bool(true)), "{i}");
            assert!(matches!(p.value(items[4]), PickleValue::None), "{i}");
            assert!(matches!(p.value(items[5]), PickleValue::Other), "{i}");
            let pair = p.tuple(items[6]).unwrap();
            let text = p.bytes(pair[0]).or_else(|| p.bytes(p.object(pair[0])?.1[0]));
            assert_eq!((text, p.int(pair[1])), (Some(&b"x"[..]), Some(1 << 40)), "{i}");
        }
    }

    #[test]
    fn nothing_nests_or_multiplies() {
        let deep = [b"]".repeat(1_000_000), b"a".repeat(999_999), b".".to_vec()].concat();
        read(&deep).unwrap();
        let deep = [b")".to_vec(), b"\x85".repeat(1_000_000), b".".to_vec()].concat();
        read(&deep).unwrap();
        // A list that holds itself, and one of ten times ten times ... the same.
        assert!(matches!(read(b"]q\0h\0a.").map(|p| p.root()), Ok(Id(0))));
        let mut laughs = b"X\x01\0\0\0aq\0".to_vec();
        for i in 0..200 {
            laughs.push(b'(');
            laughs.extend([b'h', i].repeat(10));
            laughs.extend([b'l', b'q', i + 1]);
        }
        laughs.push(b'.');
        assert_eq!(read(&laughs).unwrap().values.len(), 201);
        let endless = b"N".repeat(MAX_STEPS + 1);
        assert!(read(&endless).err().unwrap().to_string().contains("operations"));
        let small = Budget::of(1000);
        assert!(Pickle::read(b"N.", &small, &|| "x".into()).is_err());
    }

    #[test]
    fn what_is_broken_is_said() {
        for bytes in [
            &b""[..],
            b"]",
            b".",
            b"a.",
            b"]a.",
            b"(.",
            b"e.",
            b"Ne.",
            b"]Nu.",
            b"}(Nu.",
            b"h\x05.",
            b"X\xff\xff\xff\xffa.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"K",
            b"I12",
            b"Ix\n.",
            b"R.",
            b"NNb.",
            b"N.N",
            b"\x93.",
            b"NN\x93.",
            b"\x8f.",
            b"\xff.",
            b"(1N",
            b"N(0.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}

//! The environment of a command: that of the VM, as Elixir gives it, and what is changed in it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustler::types::atom::Atom;
use rustler::{Binary, Error, NifResult, Term};

use crate::atoms;
use crate::spawn::c_string;

/// The variables of the VM, `NAME=value` each.
pub(crate) struct Inherited(Vec<Vec<u8>>);

/// `{name, value | nil}`.
pub(crate) type Change<'a> = (Binary<'a>, Term<'a>);

impl Inherited {
    /// From what `:os.getenv/0` returns, and the encoding of file names in this VM.
    pub(crate) fn decode(list: Term<'_>, encoding: Atom) -> NifResult<Inherited> {
        let latin1 = encoding == atoms::latin1();
        list.into_list_iterator()?
            .map(|variable| variable_bytes(variable, latin1))
            .collect::<NifResult<_>>()
            .map(Inherited)
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> Option<&OsStr> {
        let mut variables = self.0.iter();
        variables
            .find_map(|entry| entry.strip_prefix(b"PATH="))
            .map(OsStr::from_bytes)
    }

    /// The block for a command: these variables, or none with `clear`, and the changes.
    pub(crate) fn changed(&self, changes: &[Change<'_>], clear: bool) -> NifResult<Vec<CString>> {
        let mut block = Vec::with_capacity(self.0.len() + changes.len());
        let changed = |entry: &[u8]| {
            let name = name(entry);
            changes
                .iter()
                .any(|(changed, _)| changed.as_slice() == name)
        };
        if !clear {
            for entry in self.0.iter().filter(|entry| !changed(entry)) {
                block.push(c_string(entry)?);
            }
        }
        for (name, value) in changes {
            if let Ok(value) = value.decode::<Binary<'_>>() {
                let entry = [name.as_slice(), b"=", value.as_slice()].concat();
                block.push(c_string(&entry)?);
            }
        }
        Ok(block)
    }
}

/// The name ends at the first `=` that is not the first byte.
fn name(entry: &[u8]) -> &[u8] {
    let end = entry.iter().skip(1).position(|byte| *byte == b'=');
    end.map_or(entry, |index| &entry[..=index])
}

/// The bytes of a variable of the VM's environment, `NAME=value` as a charlist.
///
/// A VM that takes names for UTF-8 shows the bytes of what is none as characters below 256. Such
/// a list has two readings; the bytes are the right one if the VM has inherited them.
fn variable_bytes(list: Term<'_>, latin1: bool) -> NifResult<Vec<u8>> {
    // Quick, and right for nearly all: a list of bytes.
    let bytes = Binary::from_iolist(list).map(|bytes| bytes.to_vec());
    match bytes {
        Ok(bytes) if latin1 || bytes.is_ascii() => return Ok(bytes),
        Ok(bytes) if std::str::from_utf8(&bytes).is_err() && is_inherited(&bytes) => {
            return Ok(bytes);
        }
        _ => {}
    }
    let mut utf8 = Vec::new();
    for code in list.into_list_iterator()? {
        let char = char::from_u32(code.decode()?).ok_or(Error::BadArg)?;
        utf8.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(utf8)
}

fn is_inherited(variable: &[u8]) -> bool {
    std::env::vars_os().any(|(name, value)| {
        let rest = variable.strip_prefix(name.as_bytes());
        rest.and_then(|rest| rest.strip_prefix(b"=")) == Some(value.as_bytes())
    })
}

//! The environment of a command: that of the VM, as Elixir gives it, and what is changed in it.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustler::types::atom::Atom;
use rustler::{Binary, Error, NifResult, Term};

use crate::atoms;
use crate::spawn::c_string;

/// The variables of the VM, `NAME=value` each.
pub(crate) struct Inherited(Vec<CString>);

/// `{name, value | nil}`.
pub(crate) type Change<'a> = (Binary<'a>, Term<'a>);

impl Inherited {
    /// From what `:os.env/0` returns, and the encoding of file names in this VM. `block` is the same
    /// in one binary, `NAME=value` and a NUL each, or nil where there are other characters than bytes.
    pub(crate) fn decode(block: Term<'_>, list: Term<'_>, encoding: Atom) -> NifResult<Inherited> {
        // Quick, and right for nearly all.
        if let Ok(block) = block.decode::<Binary<'_>>() {
            if block.is_ascii() {
                return Inherited::split(block.as_slice());
            }
        }
        let latin1 = encoding == atoms::latin1();
        list.into_list_iterator()?
            .map(|variable| {
                let (name, value) = variable.decode()?;
                c_string(variable_bytes(name, value, latin1)?)
            })
            .collect::<NifResult<_>>()
            .map(Inherited)
    }

    fn split(block: &[u8]) -> NifResult<Inherited> {
        let variables = block.split_inclusive(|byte| *byte == 0);
        variables
            .map(|variable| {
                CString::from_vec_with_nul(variable.to_vec()).map_err(|_| Error::BadArg)
            })
            .collect::<NifResult<_>>()
            .map(Inherited)
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> Option<&OsStr> {
        let mut variables = self.0.iter();
        variables
            .find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="))
            .map(OsStr::from_bytes)
    }

    /// The block for a command: these variables, or none with `clear`, and the changes.
    pub(crate) fn changed(&self, changes: &[Change<'_>], clear: bool) -> NifResult<Vec<CString>> {
        let mut block = Vec::with_capacity(self.0.len() + changes.len());
        let changed = |variable: &CStr| {
            let name = name(variable.to_bytes());
            changes
                .iter()
                .any(|(changed, _)| changed.as_slice() == name)
        };
        if !clear {
            let unchanged = self.0.iter().filter(|variable| !changed(variable));
            block.extend(unchanged.cloned());
        }
        for (name, value) in changes {
            if let Ok(value) = value.decode::<Binary<'_>>() {
                block.push(c_string(
                    [name.as_slice(), b"=", value.as_slice()].concat(),
                )?);
            }
        }
        Ok(block)
    }
}

/// The name ends at the first `=` that is not the first byte.
fn name(variable: &[u8]) -> &[u8] {
    let end = variable.iter().skip(1).position(|byte| *byte == b'=');
    end.map_or(variable, |index| &variable[..=index])
}

/// The bytes of a variable of the VM's environment, whose name and value are charlists.
///
/// A VM that takes names for UTF-8 shows the bytes of what is none as characters below 256. Such
/// a list has two readings; the bytes are the right one if the VM has inherited them.
fn variable_bytes(name: Term<'_>, value: Term<'_>, latin1: bool) -> NifResult<Vec<u8>> {
    // Quick, and right for nearly all: lists of bytes.
    if let (Ok(name), Ok(value)) = (Binary::from_iolist(name), Binary::from_iolist(value)) {
        let bytes = [name.as_slice(), b"=", value.as_slice()].concat();
        let as_they_are = latin1
            || bytes.is_ascii()
            || std::str::from_utf8(&bytes).is_err() && is_inherited(&name, &value);
        if as_they_are {
            return Ok(bytes);
        }
    }
    let mut utf8 = String::new();
    push_characters(&mut utf8, name)?;
    utf8.push('=');
    push_characters(&mut utf8, value)?;
    Ok(utf8.into_bytes())
}

fn push_characters(text: &mut String, charlist: Term<'_>) -> NifResult<()> {
    for code in charlist.into_list_iterator()? {
        text.push(char::from_u32(code.decode()?).ok_or(Error::BadArg)?);
    }
    Ok(())
}

fn is_inherited(name: &[u8], value: &[u8]) -> bool {
    std::env::vars_os().any(|(n, v)| n.as_bytes() == name && v.as_bytes() == value)
}

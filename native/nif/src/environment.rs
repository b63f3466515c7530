//! The environment of a command: the VM's environment, as Elixir returns it, with the changes that
//! the command asks for.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use exile_os::Errno;
use rustler::types::atom::Atom;
use rustler::{Binary, Error, NifResult, Term};

use crate::atoms;

/// The variables of the VM, each as `NAME=value` and a NUL.
pub(crate) struct Inherited(Vec<u8>);

/// The changes for one command: `NAME=value` and a NUL for each variable to set, a name and a NUL
/// for each variable to unset.
pub(crate) struct Changes {
    pub(crate) set: Vec<u8>,
    pub(crate) unset: Vec<u8>,
    /// Nothing is inherited.
    pub(crate) clear: bool,
}

impl Inherited {
    /// Decodes the result of `:os.env/0`, given the encoding of file names in this VM. `block` is
    /// the same in one binary, or nil if it contains characters that are not bytes.
    pub(crate) fn decode(block: Term<'_>, list: Term<'_>, encoding: Atom) -> NifResult<Inherited> {
        // The fast path, which is right for nearly all environments.
        if let Ok(block) = block.decode::<Binary<'_>>() {
            if block.is_ascii() {
                return owned(&block).map(Inherited);
            }
        }
        let latin1 = encoding == atoms::latin1();
        let mut block = Vec::new();
        for variable in list.into_list_iterator()? {
            let (name, value) = variable.decode()?;
            block.extend(variable_bytes(name, value, latin1)?);
            block.push(0);
        }
        Ok(Inherited(block))
    }

    /// The value of `PATH`, where programs are searched.
    pub(crate) fn path(&self) -> Option<&OsStr> {
        let mut variables = parts(&self.0);
        variables
            .find_map(|variable| variable.strip_prefix(b"PATH="))
            .map(OsStr::from_bytes)
    }

    /// The environment of a command.
    pub(crate) fn changed(&self, changes: &Changes) -> Result<Vec<CString>, Errno> {
        let names: BTreeSet<&[u8]> = parts(&changes.set)
            .map(name)
            .chain(parts(&changes.unset))
            .collect();
        let inherited: &[u8] = if changes.clear { &[] } else { &self.0 };
        let kept = parts(inherited).filter(|variable| !names.contains(name(variable)));
        strings(kept.chain(parts(&changes.set)))
    }
}

/// The parts of a block, each of which ends with a NUL.
pub(crate) fn parts(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block
        .split_inclusive(|byte| *byte == 0)
        .map(|part| part.strip_suffix(&[0]).unwrap_or(part))
}

/// Parts without a NUL, as C strings.
pub(crate) fn strings<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<CString>, Errno> {
    let mut strings = Vec::new();
    for part in parts {
        strings.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let mut bytes = Vec::new();
        let room = bytes.try_reserve_exact(part.len() + 1);
        room.map_err(|_| Errno::ENOMEM)?;
        bytes.extend_from_slice(part);
        strings.push(CString::new(bytes).map_err(|_| Errno::EINVAL)?);
    }
    Ok(strings)
}

/// Copies the bytes, and raises `enomem` if there is no memory for the copy.
pub(crate) fn owned(bytes: &[u8]) -> NifResult<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())
        .map_err(|_| Error::RaiseAtom("enomem"))?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// The name ends at the first `=` that is not the first byte.
fn name(variable: &[u8]) -> &[u8] {
    let end = variable.iter().skip(1).position(|byte| *byte == b'=');
    end.map_or(variable, |index| &variable[..=index])
}

/// The bytes of a variable of the VM's environment, whose name and value are charlists.
///
/// A VM that reads names as UTF-8 returns the bytes of anything else as characters below 256. Such
/// a list can be read as bytes or as characters. The bytes are right if the VM inherited the
/// variable with exactly these bytes.
fn variable_bytes(name: Term<'_>, value: Term<'_>, latin1: bool) -> NifResult<Vec<u8>> {
    // The fast path, which is right for nearly all variables: lists of bytes.
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

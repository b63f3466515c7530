//! The entry point that the VM looks up when it loads the library.
//!
//! It is written by hand because rustler's macro has no upgrade callback. Without that callback,
//! the VM would refuse to load the module again, as a recompiling shell does.
//!
//! # Safety
//! Unsafe code here fills the structure that the VM reads, and wraps the environment of a
//! callback for the duration of that callback.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::panic::catch_unwind;
use std::ptr;

use rustler::codegen_runtime::{
    NIF_MAJOR_VERSION, NIF_MINOR_VERSION, get_nif_resource_type_init_size, internal_write_symbols,
    inventory, min_erts,
};
use rustler::sys::{ERL_NIF_DIRTY_NIF_OPTION, ERL_NIF_TERM, ErlNifEntry, ErlNifEnv, ErlNifFunc};
use rustler::{Env, Nif, Term};

use crate::pipe::{Grip, Pipe};
use crate::process::Process;
use crate::request::Request;
use crate::tether::Tether;
use crate::watch::Watch;
use crate::{resource, vm};

/// Identifies this file to programs that cannot load it.
const MARK: &str = concat!("libexile_nif version ", env!("CARGO_PKG_VERSION"), ";");

#[unsafe(no_mangle)]
extern "C" fn nif_init() -> *const ErlNifEntry {
    // SAFETY: the VM calls this first, on one thread, and has loaded the functions it looks up.
    unsafe { internal_write_symbols() };
    let functions: Vec<ErlNifFunc> = inventory::iter::<Nif>().map(Nif::get_def).collect();
    // The VM keeps pointers to both for as long as the library is loaded, which is forever.
    let functions = functions.leak();
    Box::leak(Box::new(ErlNifEntry {
        major: NIF_MAJOR_VERSION,
        minor: NIF_MINOR_VERSION,
        name: c"Elixir.Exile.Native".as_ptr(),
        num_of_funcs: functions.len() as c_int,
        funcs: functions.as_ptr(),
        load: Some(load),
        reload: None,
        upgrade: Some(upgrade),
        unload: None,
        vm_variant: c"beam.vanilla".as_ptr(),
        options: ERL_NIF_DIRTY_NIF_OPTION,
        sizeof_ErlNifResourceTypeInit: get_nif_resource_type_init_size(),
        min_erts: min_erts().as_ptr().cast(),
    }))
}

unsafe extern "C" fn load(
    env: *mut ErlNifEnv,
    _priv_data: *mut *mut c_void,
    load_info: ERL_NIF_TERM,
) -> c_int {
    start(env, load_info)
}

unsafe extern "C" fn upgrade(
    env: *mut ErlNifEnv,
    _priv_data: *mut *mut c_void,
    _old_priv_data: *mut *mut c_void,
    load_info: ERL_NIF_TERM,
) -> c_int {
    start(env, load_info)
}

/// The callbacks return this if the library does not fit the module that loads it. If the system
/// does not provide what they need, they return its error number.
const UNFIT: c_int = 1;

fn start(env: *mut ErlNifEnv, load_info: ERL_NIF_TERM) -> c_int {
    let started = catch_unwind(|| {
        black_box(MARK); // otherwise it is unused, and left out
        let lifetime = ptr::null::<()>();
        // SAFETY: the environment is valid during the callback, the lifetime is this closure's.
        let env = unsafe { Env::new_init_env(&lifetime, env) };
        // SAFETY: the term belongs to that environment.
        let load_info = unsafe { Term::new(env, load_info) };
        // Functions of another version may have the same names and a different meaning.
        let Ok((exit_source, version)) = load_info.decode::<(Term<'_>, &str)>() else {
            return Err(UNFIT);
        };
        let fits = version == env!("CARGO_PKG_VERSION")
            && resource::open::<Watch>(env)
            && resource::open::<Pipe>(env)
            && resource::open::<Grip>(env)
            && resource::open::<Process>(env)
            && resource::open::<Tether>(env)
            && resource::open::<Request>(env);
        if !fits {
            return Err(UNFIT);
        }
        vm::start(exit_source).map_err(|errno| errno.raw())
    });
    match started {
        Ok(Ok(())) => 0,
        Ok(Err(reason)) => reason,
        Err(_) => UNFIT,
    }
}

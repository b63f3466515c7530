//! A process of the VM that waits for a message, and how it gets one that the VM will not send.
//!
//! # Safety
//! Unsafe code here calls the VM's C interface with environments that are ours or that came from the
//! VM for the duration of the call.
#![allow(unsafe_code)]

use std::ptr;

use rustler::sys::{self, ERL_NIF_TERM, ErlNifEnv, ErlNifPid};
use rustler::types::local_pid::LocalPid;
use rustler::{Env, Term};

use crate::atoms;

/// A process of this VM.
pub(crate) type Pid = LocalPid;

/// The process that calls.
pub(crate) fn pid(env: Env<'_>) -> Pid {
    env.pid()
}

/// Where a call comes from, which decides how a message may be sent.
#[derive(Clone, Copy)]
pub(crate) struct Caller(*mut ErlNifEnv);

impl Caller {
    /// A thread of our own.
    pub(crate) const THREAD: Caller = Caller(ptr::null_mut());

    pub(crate) fn new(env: *mut ErlNifEnv) -> Caller {
        Caller(env)
    }

    pub(crate) fn as_c_arg(self) -> *mut ErlNifEnv {
        self.0
    }

    /// Calls `body` with the environment of the caller; on a thread of our own with a new one.
    pub(crate) fn with_env(self, body: impl FnOnce(*mut ErlNifEnv)) {
        if !self.0.is_null() {
            return body(self.0);
        }
        // SAFETY: nothing refers to the new environment when it is freed.
        unsafe {
            let env = sys::enif_alloc_env();
            body(env);
            sys::enif_free_env(env);
        }
    }
}

impl From<Env<'_>> for Caller {
    fn from(env: Env<'_>) -> Caller {
        Caller(env.as_c_arg())
    }
}

/// A process that waits, and the reference by which it knows its message.
pub(crate) struct Wait {
    pid: Pid,
    env: *mut ErlNifEnv,
    reference: ERL_NIF_TERM,
}

// SAFETY: the environment is independent of any process and this is its only owner.
unsafe impl Send for Wait {}

impl Wait {
    pub(crate) fn new(pid: Pid, reference: Term<'_>) -> Wait {
        // SAFETY: a new environment, freed in `drop`, holds the copy of the reference.
        unsafe {
            let env = sys::enif_alloc_env();
            Wait {
                pid,
                env,
                reference: sys::enif_make_copy(env, reference.as_c_arg()),
            }
        }
    }

    /// Whether this is the wait that `reference` stands for.
    pub(crate) fn is(&self, reference: Term<'_>) -> bool {
        // SAFETY: comparing terms reads them only; both environments are alive.
        unsafe { sys::enif_is_identical(self.reference, reference.as_c_arg()) != 0 }
    }

    /// The process, the environment of the reference, and the reference.
    pub(crate) fn as_c_args(&self) -> (*const ErlNifPid, *mut ErlNifEnv, ERL_NIF_TERM) {
        (self.pid.as_c_arg(), self.env, self.reference)
    }

    /// Sends the message that the VM will not send, `{:select, :undefined, ref, :undefined}`. The
    /// waiting process then tries again, so the message says nothing else. `false`: it is dead.
    pub(crate) fn wake(self, caller: Caller) -> bool {
        let none = atoms::undefined().as_c_arg();
        let reference = self.reference;
        self.send(caller, &[atoms::select().as_c_arg(), none, reference, none])
    }

    /// Sends `{reference, answer}`. `false`: the waiting process is dead, and the answer is dropped.
    pub(crate) fn answer(self, caller: Caller, answer: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        let lifetime = ();
        // SAFETY: the environment is alive until `self` is dropped, and the lifetime ends before.
        let env = unsafe { Env::new(&lifetime, self.env) };
        let answer = answer(env).as_c_arg();
        let reference = self.reference;
        self.send(caller, &[reference, answer])
    }

    /// Sends a tuple of atoms and terms of `self.env`.
    fn send(self, caller: Caller, parts: &[ERL_NIF_TERM]) -> bool {
        // SAFETY: the terms of the message are atoms or belong to `env`, which is ours; the caller
        // says whether this thread is one of the VM's.
        unsafe {
            let message =
                sys::enif_make_tuple_from_array(self.env, parts.as_ptr(), parts.len() as u32);
            sys::enif_send(caller.0, self.pid.as_c_arg(), self.env, message) != 0
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; a sent environment is cleared and still ours to free.
        unsafe { sys::enif_free_env(self.env) };
    }
}

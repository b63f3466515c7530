//! Raw resources of the VM: objects that Erlang code holds by reference, that monitor a process,
//! and whose descriptor the VM waits on. The one place for `enif_select` and its rules.
//!
//! * A descriptor is closed in the stop callback and nowhere else once it has been selected. The
//!   VM calls it from [`Handle::stop`] directly, or later on a thread of its own: no lock that
//!   the callback takes may be held across that call.
//! * A wait ends with exactly one message. The VM sends it when the descriptor is ready. If the VM says,
//!   when the wait is cancelled, that it will not send it, we do.
//!
//! # Safety
//! Unsafe code here calls the VM's C interface with environments that came from the VM for the
//! duration of the call, and with objects that a [`Handle`] keeps alive.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use rustler::sys::{
    self, ErlNifEnv, ErlNifEvent, ErlNifMonitor, ErlNifPid, ErlNifResourceFlags,
    ErlNifResourceType, ErlNifResourceTypeInit,
};
use rustler::{Decoder, Encoder, Env, NifResult, Term};

use crate::atoms;
use crate::wait::{Caller, Pid, Wait};

/// `ERL_NIF_SELECT_CANCEL`, which rustler does not name.
const SELECT_CANCEL: c_int = 1 << 3;

/// The VM aligns the memory of resources to this many bytes at least.
const RESOURCE_ALIGN: usize = 8;

/// How many members of `ErlNifResourceTypeInit` are set: dtor, stop and down.
const CALLBACKS: c_int = 3;

/// What an object does when the VM calls.
pub(crate) trait Resource: Sized + Send + Sync + 'static {
    /// The name of the type, unique in the library.
    const NAME: &'static str;

    /// Where the VM's number for the type is kept.
    fn kind() -> &'static Kind;

    /// When a process dies, the objects that watch it are told in the order of this number.
    const TOLD: u8 = 0;

    /// The VM no longer uses the descriptor: close it.
    fn stop(&self) {}

    /// A process that this object watches died.
    fn down(_handle: &Handle<Self>, _caller: Caller, _pid: Pid) {}

    /// Nobody holds the object any more; it is dropped next.
    fn released(&mut self, _caller: Caller) {}
}

/// A type of resource, known to the VM after [`open`].
pub(crate) struct Kind(AtomicPtr<ErlNifResourceType>);

impl Kind {
    pub(crate) const fn new() -> Kind {
        Kind(AtomicPtr::new(ptr::null_mut()))
    }

    fn get(&self) -> *const ErlNifResourceType {
        self.0.load(Ordering::Acquire)
    }
}

/// Registers a type. To be called from the load and upgrade callbacks only.
///
/// When a module is loaded again with this library still mapped, the type is taken over, and old
/// objects stay valid. The name holds an address of this mapping, so that another build of the
/// library never takes over objects that it would misread.
pub(crate) fn open<R: Resource>(env: Env<'_>) -> bool {
    const { assert!(align_of::<R>() <= RESOURCE_ALIGN) };
    let here = ptr::from_ref(R::kind()).addr();
    let Ok(name) = CString::new(format!("Exile.{}@{here:x}", R::NAME)) else {
        return false;
    };
    let init = ErlNifResourceTypeInit {
        dtor: destructor::<R> as *const sys::ErlNifResourceDtor,
        stop: stop::<R> as *const sys::ErlNifResourceStop,
        down: down::<R> as *const sys::ErlNifResourceDown,
        members: CALLBACKS,
        dyncall: ptr::null(),
    };
    // The VM wants a set of flags where rustler's enumeration has room for one of them. Creating
    // comes first; where the type is there already, it is taken over.
    for flags in [
        ErlNifResourceFlags::ERL_NIF_RT_CREATE,
        ErlNifResourceFlags::ERL_NIF_RT_TAKEOVER,
    ] {
        let mut tried = MaybeUninit::uninit();
        // SAFETY: called while the VM loads us, with its environment; name and init are read
        // before the call returns, and the callbacks are never unmapped.
        let kind = unsafe {
            let env = env.as_c_arg();
            sys::enif_open_resource_type_x(
                env,
                name.as_ptr(),
                &raw const init,
                flags,
                tried.as_mut_ptr(),
            )
        };
        if !kind.is_null() {
            R::kind().0.store(kind.cast_mut(), Ordering::Release);
            return true;
        }
    }
    false
}

unsafe extern "C" fn destructor<R: Resource>(env: *mut ErlNifEnv, object: *mut c_void) {
    let object = object.cast::<R>();
    // SAFETY: the VM destroys an object once, when nobody refers to it, and `Handle::new`
    // initialised it.
    let _ = catch_unwind(AssertUnwindSafe(|| unsafe {
        (*object).released(Caller::new(env));
    }));
    // SAFETY: as above.
    let _ = catch_unwind(AssertUnwindSafe(|| unsafe { ptr::drop_in_place(object) }));
}

unsafe extern "C" fn stop<R: Resource>(
    _env: *mut ErlNifEnv,
    object: *mut c_void,
    _event: ErlNifEvent,
    _is_direct_call: c_int,
) {
    // SAFETY: the VM keeps the object alive during the callback.
    let resource = unsafe { &*object.cast::<R>() };
    let _ = catch_unwind(AssertUnwindSafe(|| resource.stop()));
}

unsafe extern "C" fn down<R: Resource>(
    env: *mut ErlNifEnv,
    object: *mut c_void,
    pid: *const ErlNifPid,
    _monitor: *const ErlNifMonitor,
) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Some(object) = NonNull::new(object.cast::<R>()) else {
            return;
        };
        // SAFETY: the VM keeps the object alive and the pid valid during the callback.
        let (handle, pid) = unsafe { (Handle::keep(object), Pid::from_c_arg(*pid)) };
        R::down(&handle, Caller::new(env), pid);
    }));
}

/// A counted reference to an object.
pub(crate) struct Handle<R: Resource> {
    object: NonNull<R>,
    _owns: PhantomData<R>,
}

// SAFETY: the VM counts references atomically, and the object itself is Send and Sync.
unsafe impl<R: Resource> Send for Handle<R> {}
// SAFETY: as above.
unsafe impl<R: Resource> Sync for Handle<R> {}

impl<R: Resource> Handle<R> {
    /// Moves a value into an object of the VM.
    pub(crate) fn new(value: R) -> Handle<R> {
        // SAFETY: the type was opened at load; the VM aborts when it is out of memory; the
        // object is large and aligned enough for the value and not yet initialised.
        unsafe {
            let object = sys::enif_alloc_resource(R::kind().get(), size_of::<R>()).cast::<R>();
            object.write(value);
            Handle {
                object: NonNull::new_unchecked(object),
                _owns: PhantomData,
            }
        }
    }

    /// # Safety
    /// `object` is a live object of this type.
    unsafe fn keep(object: NonNull<R>) -> Handle<R> {
        // SAFETY: as demanded.
        unsafe { sys::enif_keep_resource(object.as_ptr().cast()) };
        Handle {
            object,
            _owns: PhantomData,
        }
    }

    fn as_void(&self) -> *const c_void {
        self.object.as_ptr().cast()
    }

    /// Waits for `fd`, whose readiness is sent to `wait.pid` as `{:select, object, ref, _}`.
    pub(crate) fn select(
        &self,
        fd: RawFd,
        direction: Direction,
        wait: &Wait,
    ) -> Result<(), Refused> {
        let (pid, env, reference) = wait.as_c_args();
        // SAFETY: the descriptor is open, by the contract of the callers; with an explicit pid
        // the environment is not used; the reference is copied into the message.
        let result = unsafe {
            sys::enif_select(env, fd, direction as c_int, self.as_void(), pid, reference)
        };
        if result < 0 { Err(Refused) } else { Ok(()) }
    }

    /// Ends a wait early. `true`: the VM will not send its message any more. `false`: it has.
    pub(crate) fn cancel(&self, fd: RawFd, direction: Direction, wait: &Wait) -> bool {
        let mode = direction as c_int | SELECT_CANCEL;
        let (pid, env, reference) = wait.as_c_args();
        // SAFETY: as for `select`.
        let result = unsafe { sys::enif_select(env, fd, mode, self.as_void(), pid, reference) };
        let cancelled = sys::ERL_NIF_SELECT_READ_CANCELLED | sys::ERL_NIF_SELECT_WRITE_CANCELLED;
        result >= 0 && result & cancelled != 0
    }

    /// Lets the VM give up `fd`: the stop callback is called, now or later.
    pub(crate) fn stop(&self, caller: Caller, fd: RawFd) {
        let mode = sys::ERL_NIF_SELECT_STOP;
        let none = atoms::undefined().as_c_arg();
        // Newer versions of the VM look into the environment, and a thread of our own has none.
        caller.with_env(|env| {
            // SAFETY: the descriptor is open until the stop callback closes it. The environment is
            // alive; without a pid and without a wait nothing is put into it.
            unsafe { sys::enif_select(env, fd, mode, self.as_void(), ptr::null(), none) };
        });
    }

    /// Has the VM call `down` when `pid` dies. `false`: it is dead already. Only one kind of object may
    /// do this, see [`watch`](crate::watch).
    pub(crate) fn monitor_process(&self, caller: Caller, pid: Pid) -> bool {
        let mut monitor = MaybeUninit::<ErlNifMonitor>::uninit();
        // SAFETY: the object is alive, the type has a down callback, and the VM writes the monitor.
        let failed = unsafe {
            let monitor = monitor.as_mut_ptr();
            sys::enif_monitor_process(caller.as_c_arg(), self.as_void(), pid.as_c_arg(), monitor)
        };
        failed == 0
    }
}

impl<R: Resource> Deref for Handle<R> {
    type Target = R;

    fn deref(&self) -> &R {
        // SAFETY: the handle keeps the object alive, and shared access is all it gives.
        unsafe { self.object.as_ref() }
    }
}

impl<R: Resource> Clone for Handle<R> {
    fn clone(&self) -> Self {
        // SAFETY: the object is alive while self is.
        unsafe { Handle::keep(self.object) }
    }
}

impl<R: Resource> Drop for Handle<R> {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that this handle has.
        unsafe { sys::enif_release_resource(self.as_void()) };
    }
}

impl<R: Resource> Encoder for Handle<R> {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        // SAFETY: the object is alive; the term takes a reference of its own.
        unsafe { Term::new(env, sys::enif_make_resource(env.as_c_arg(), self.as_void())) }
    }
}

impl<'a, R: Resource> Decoder<'a> for Handle<R> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let mut object = ptr::null();
        // SAFETY: the VM checks the type of the term and of the object, which the term keeps
        // alive until we do.
        unsafe {
            let env = term.get_env().as_c_arg();
            if sys::enif_get_resource(env, term.as_c_arg(), R::kind().get(), &raw mut object) == 0 {
                return Err(rustler::Error::BadArg);
            }
            NonNull::new(object.cast_mut().cast::<R>())
                .map(|object| Handle::keep(object))
                .ok_or(rustler::Error::BadArg)
        }
    }
}

/// Which way bytes flow through a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Direction {
    Read = sys::ERL_NIF_SELECT_READ,
    Write = sys::ERL_NIF_SELECT_WRITE,
}

/// The system would not let the VM wait for a descriptor.
pub(crate) struct Refused;

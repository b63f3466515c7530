//! Raw resources of the VM: objects that Erlang code holds by reference, that monitor a process,
//! and whose descriptor the VM waits on. The one place for `enif_select` and its rules.
//!
//! * A descriptor is closed in the stop callback and nowhere else once it has been selected. The
//!   VM calls it from [`Handle::stop`] directly, or later on a thread of its own: no lock that
//!   the callback takes may be held across that call.
//! * A wait ends with exactly one message. Either the VM sends it when the descriptor is ready,
//!   or it tells, when the wait is cancelled, that it will not, and we send it.
//!
//! # Safety
//! Unsafe code here calls the VM's C interface with environments that came from the VM for the
//! duration of the call, and with objects that a [`Handle`] keeps alive.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustler::sys::{
    self, ErlNifEnv, ErlNifEvent, ErlNifMonitor, ErlNifPid, ErlNifResourceFlags,
    ErlNifResourceType, ErlNifResourceTypeInit,
};
use rustler::types::local_pid::LocalPid;
use rustler::{Decoder, Encoder, Env, NifResult, Term};

use crate::atoms;

/// `ERL_NIF_SELECT_CANCEL`, which rustler does not name.
const SELECT_CANCEL: c_int = 1 << 3;

/// The VM aligns the memory of resources to this many bytes at least.
const RESOURCE_ALIGN: usize = 8;

/// How many members of `ErlNifResourceTypeInit` are set: dtor, stop and down.
const CALLBACKS: c_int = 3;

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
}

impl From<Env<'_>> for Caller {
    fn from(env: Env<'_>) -> Caller {
        Caller(env.as_c_arg())
    }
}

/// An environment for one call from a thread of our own.
struct OwnEnv(*mut ErlNifEnv);

impl OwnEnv {
    fn for_thread(caller: Caller) -> Option<OwnEnv> {
        // SAFETY: a new environment, freed in `drop`.
        caller
            .0
            .is_null()
            .then(|| OwnEnv(unsafe { sys::enif_alloc_env() }))
    }
}

impl Drop for OwnEnv {
    fn drop(&mut self) {
        // SAFETY: allocated in `for_thread`, and nobody else's.
        unsafe { sys::enif_free_env(self.0) };
    }
}

/// What an object does when the VM calls.
pub(crate) trait Resource: Sized + Send + Sync + 'static {
    /// The name of the type, unique in the library.
    const NAME: &'static str;

    /// Where the VM's number for the type is kept.
    fn kind() -> &'static Kind;

    /// Of several objects that wait for the death of a process, those with the least number are told
    /// first.
    const TOLD: u8 = 0;

    /// The VM has let go of the descriptor: close it.
    fn stop(&self) {}

    /// A monitored process died.
    fn down(_handle: &Handle<Self>, _caller: Caller, _pid: LocalPid) {}

    /// Nobody holds the object any more; it is dropped next.
    fn released(&mut self, _caller: Caller) {}
}

/// A type of resource, known to the VM after [`Kind::open`].
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
        (*object).released(Caller(env));
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
        let (handle, pid) = unsafe { (Handle::keep(object), LocalPid::from_c_arg(*pid)) };
        R::down(&handle, Caller(env), pid);
    }));
}

static MONITORS: AtomicUsize = AtomicUsize::new(0);

/// How many objects wait for the death of a process.
pub(crate) fn monitor_count() -> usize {
    MONITORS.load(Ordering::Acquire)
}

/// All that waits for the death of one process of the VM, which this object monitors until then.
///
/// An object that is destroyed before the process has taken note that it is monitored no longer is still
/// found by `process_info(Pid, monitored_by)`, which makes a reference to it, and the VM (OTP 25 to 29)
/// then destroys it a second time. So no other object has monitors of its own, and this one lives as
/// long as the process.
struct Watch {
    bound: Mutex<Bound>,
}

#[derive(Default)]
struct Bound {
    /// The process is dead, and what waited has been told.
    over: bool,
    last: u64,
    /// By what is told first, and by age.
    all: BTreeMap<(u8, u64), Told>,
}

/// Tells an object of the death.
type Told = Box<dyn FnOnce(Caller, LocalPid) + Send>;

/// The watches, by the processes.
static WATCHES: Mutex<BTreeMap<LocalPid, Handle<Watch>>> = Mutex::new(BTreeMap::new());

fn watches() -> MutexGuard<'static, BTreeMap<LocalPid, Handle<Watch>>> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resource for Watch {
    const NAME: &'static str = "Watch";

    fn kind() -> &'static Kind {
        static KIND: Kind = Kind::new();
        &KIND
    }

    fn down(handle: &Handle<Self>, caller: Caller, pid: LocalPid) {
        let watch = watches().remove(&pid);
        let all = {
            let mut bound = handle.bound();
            bound.over = true;
            std::mem::take(&mut bound.all)
        };
        for told in all.into_values() {
            told(caller, pid);
        }
        drop(watch);
    }
}

impl Handle<Watch> {
    /// The watch of a process; `None` when that is dead.
    fn watching(caller: Caller, pid: LocalPid) -> Option<Handle<Watch>> {
        // Held meanwhile, so that there is one for each process. The VM calls nothing of ours here.
        let mut watches = watches();
        if let Some(watch) = watches.get(&pid) {
            return Some(watch.clone());
        }
        let watch = Handle::new(Watch {
            bound: Mutex::new(Bound::default()),
        });
        let mut monitor = MaybeUninit::<ErlNifMonitor>::uninit();
        // SAFETY: the object is alive, the type has a down callback, and the VM writes the monitor.
        let failed = unsafe {
            let object = watch.as_void();
            sys::enif_monitor_process(caller.0, object, pid.as_c_arg(), monitor.as_mut_ptr())
        };
        if failed != 0 {
            return None;
        }
        watches.insert(pid, watch.clone());
        Some(watch)
    }
}

/// That an object waits for the death of a process, until this is dropped.
pub(crate) struct Monitor {
    watch: Handle<Watch>,
    place: (u8, u64),
}

impl Drop for Monitor {
    fn drop(&mut self) {
        MONITORS.fetch_sub(1, Ordering::AcqRel);
        let told = self.watch.bound().all.remove(&self.place);
        // What it drops may come here again.
        drop(told);
    }
}

/// Opens the type of object that monitors processes for all others.
pub(crate) fn open_watches(env: Env<'_>) -> bool {
    open::<Watch>(env)
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
        let pid = wait.pid.as_c_arg();
        // SAFETY: the descriptor is open, by the contract of the callers; with an explicit pid
        // the environment is not used; the reference is copied into the message.
        let result = unsafe {
            sys::enif_select(
                wait.env,
                fd,
                direction as c_int,
                self.as_void(),
                pid,
                wait.reference,
            )
        };
        if result < 0 { Err(Refused) } else { Ok(()) }
    }

    /// Ends a wait early. `true`: the VM will not send its message any more. `false`: it has.
    pub(crate) fn cancel(&self, fd: RawFd, direction: Direction, wait: &Wait) -> bool {
        let mode = direction as c_int | SELECT_CANCEL;
        let pid = wait.pid.as_c_arg();
        // SAFETY: as for `select`.
        let result =
            unsafe { sys::enif_select(wait.env, fd, mode, self.as_void(), pid, wait.reference) };
        let cancelled = sys::ERL_NIF_SELECT_READ_CANCELLED | sys::ERL_NIF_SELECT_WRITE_CANCELLED;
        result >= 0 && result & cancelled != 0
    }

    /// Lets the VM give up `fd`: the stop callback is called, now or later.
    pub(crate) fn stop(&self, caller: Caller, fd: RawFd) {
        // A thread of our own has no environment, and later versions of the VM look into it.
        let own = OwnEnv::for_thread(caller);
        let env = own.as_ref().map_or(caller.0, |own| own.0);
        // SAFETY: the descriptor is open until the stop callback closes it. The environment is alive;
        // without a pid and without a wait nothing is put into it.
        unsafe {
            let mode = sys::ERL_NIF_SELECT_STOP;
            sys::enif_select(
                env,
                fd,
                mode,
                self.as_void(),
                ptr::null(),
                atom(atoms::undefined()),
            );
        }
    }

    /// Has `down` called when `pid` dies, and keeps the object until then or until the monitor is
    /// dropped; `None` when it is dead already.
    pub(crate) fn monitor(&self, caller: Caller, pid: LocalPid) -> Option<Monitor> {
        let watch = Handle::watching(caller, pid)?;
        let handle = self.clone();
        let told: Told = Box::new(move |caller, pid| R::down(&handle, caller, pid));
        let place = {
            let mut bound = watch.bound();
            if bound.over {
                return None;
            }
            bound.last += 1;
            let place = (R::TOLD, bound.last);
            bound.all.insert(place, told);
            place
        };
        MONITORS.fetch_add(1, Ordering::AcqRel);
        Some(Monitor { watch, place })
    }

    /// Ends a monitor, unless it has fired.
    #[expect(clippy::unused_self, reason = "it is the object's monitor")]
    pub(crate) fn demonitor(&self, _caller: Caller, monitor: Monitor) {
        drop(monitor);
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

/// A process that waits, and the reference by which it knows its message.
pub(crate) struct Wait {
    pid: LocalPid,
    env: *mut ErlNifEnv,
    reference: sys::ERL_NIF_TERM,
}

// SAFETY: the environment is independent of any process and this is its only owner.
unsafe impl Send for Wait {}

impl Wait {
    pub(crate) fn new(pid: LocalPid, reference: Term<'_>) -> Wait {
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

    /// Sends the message that the VM will not send, `{:select, :undefined, ref, :undefined}`. The
    /// waiting process looks again, so it says nothing else. `false`: it is dead and needs none.
    pub(crate) fn wake(self, caller: Caller) -> bool {
        let none = atom(atoms::undefined());
        let parts = [atom(atoms::select()), none, self.reference, none];
        // SAFETY: the terms of the message are atoms or belong to `env`, which is ours; the
        // caller tells whether this thread is one of the VM's.
        unsafe {
            let message =
                sys::enif_make_tuple_from_array(self.env, parts.as_ptr(), parts.len() as u32);
            sys::enif_send(caller.0, self.pid.as_c_arg(), self.env, message) != 0
        }
    }
}

impl Wait {
    /// Sends `{reference, answer}` in place of the message of [`wake`](Self::wake). `false`: the
    /// process that waits is dead, and what was in the answer is dropped.
    pub(crate) fn answer(self, caller: Caller, answer: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        let lifetime = ();
        // SAFETY: the environment is alive until `self` is dropped, and the lifetime ends before.
        let env = unsafe { Env::new(&lifetime, self.env) };
        let answer = answer(env).as_c_arg();
        let parts = [self.reference, answer];
        // SAFETY: the terms of the message belong to `env`, which is ours; the caller tells
        // whether this thread is one of the VM's.
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

fn atom(atom: rustler::types::atom::Atom) -> sys::ERL_NIF_TERM {
    atom.as_c_arg()
}

//! Threads for what may block: opening files, asking a controller.

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Enough that one file on a dead network mount does not hold up the others.
const THREADS: usize = 4;

/// Something that may block.
pub(super) struct Job(Box<dyn FnOnce() + Send>);

impl Job {
    pub(super) fn new(job: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(job))
    }
}

/// The threads. They end with this, after the jobs they have; nobody waits for a job that hangs.
pub(crate) struct Helpers {
    jobs: Sender<Job>,
    _threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = unbounded();
        let threads = (0..THREADS).map(|number| {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("helper_{number}"))
                .stack_size(256 << 10)
                .spawn(move || {
                    for Job(job) in queue {
                        job();
                    }
                })
        });
        let _threads = threads.collect::<Result<_, _>>()?;
        Ok(Self { jobs, _threads })
    }

    pub(super) fn run(&self, job: Job) {
        // The threads live as long as this does.
        let _ = self.jobs.send(job);
    }
}

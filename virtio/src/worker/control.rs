//! What the device tells the worker.

use super::*;

impl Worker {
    /// Takes everything that is in the inbox; whether there was something.
    #[cold]
    pub(super) fn take_messages(&mut self, cx: &mut Cx) -> bool {
        let mut any = false;
        while let Ok(message) = self.inbox.try_recv() {
            self.take(cx, message);
            any = true;
        }
        any
    }

    fn take(&mut self, cx: &mut Cx, message: ToWorker) {
        match message {
            ToWorker::Start { index, setup } => self.start(cx, index, *setup),
            ToWorker::Stop { index } => {
                if let Some(queue) = self.find(index) {
                    queue.stop(cx);
                    self.stopping = true;
                }
                self.env.disks.expedite(cx);
            }
            ToWorker::Interrupt { index, interrupt } => {
                if let Some(queue) = self.find(index) {
                    queue.set_interrupt(interrupt);
                }
            }
            ToWorker::Map(map) => self.set_map(map),
            ToWorker::Disk(target, ack) => self.env.disks.swap(cx, target, ack),
            ToWorker::Resized(blocks) => self.env.disks.resize(blocks),
            ToWorker::Coalescing(coalescing) => {
                self.env.coalescing = coalescing;
                for queue in self.queues.iter_mut().flatten() {
                    queue.set_coalescing(coalescing);
                }
            }
            ToWorker::Describe(gather) => {
                let lcore = cx.handle().lcore();
                let queues = self.queues.iter().flatten();
                let queues = queues.map(|queue| queue.info(lcore));
                gather.add(|snapshot| snapshot.queues.extend(queues));
            }
            ToWorker::Exit => {
                self.env.exiting = true;
                for queue in self.queues.iter_mut().flatten() {
                    queue.drain(cx, &mut self.env);
                }
                self.env.disks.expedite(cx);
            }
        }
    }

    fn find(&mut self, index: u16) -> Option<&mut Queue> {
        let mut queues = self.queues.iter_mut().flatten();
        queues.find(|queue| queue.index() == index)
    }

    fn start(&mut self, cx: &mut Cx, index: u16, setup: QueueSetup) {
        let free = self.queues.iter().position(Option::is_none);
        let place = free.unwrap_or(self.queues.len());
        // A device has 256 queues at most.
        let Ok(tag) = u16::try_from(place) else {
            return;
        };
        if free.is_none() {
            self.queues.push(None);
        }
        let queue = Queue::new(cx, &self.env, tag, index, setup);
        self.queues[place] = Some(queue);
        // The new one may have work already: it has a while before it must ask for notifications.
        self.set_armed(false);
        self.last_work = cx.now();
    }

    fn set_map(&mut self, map: Arc<DmaMap>) {
        let old = std::mem::replace(&mut self.env.view, MapView::new(map));
        for queue in self.queues.iter_mut().flatten() {
            queue.remap(&self.env, &old);
        }
        self.set_armed(false);
        self.check_memory();
    }
}

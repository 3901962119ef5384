import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** What a client does at a time, each in a thread: until it is told to stop, and no failure goes unseen. */
final class Works {
    private Works() {}

    interface Work {
        void run() throws Exception;
    }

    /** Runs them, and calls `stop` when a line comes, or the process that reads us ends. */
    static void untilTold(Runnable stop, Work... works) throws Exception {
        List<Thread> threads = new ArrayList<>();
        for (Work work : works) {
            threads.add(start(work));
        }
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).readLine();
        stop.run();
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private static Thread start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Throwable failure) {
                failure.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        });
        thread.start();
        return thread;
    }
}

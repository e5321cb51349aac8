package callback

import "sync"

// Go runs f, which calls functions of the application, on a new goroutine, like done.Go. If one of
// them ends the goroutine with runtime.Goexit, as t.FailNow does, Go calls f again on another
// goroutine, with exited set. The goroutines end when f returns, and done waits for that.
func Go(done *sync.WaitGroup, f func(exited bool)) {
	done.Add(1)
	go run(done, f, false)
}

func run(done *sync.WaitGroup, f func(exited bool), exited bool) {
	returned := false
	defer func() {
		if returned {
			done.Done()
		} else {
			go run(done, f, true) // ends like this one
		}
	}()
	f(exited)
	returned = true
}

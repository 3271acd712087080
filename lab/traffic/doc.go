// Package traffic makes and observes the packets of a lab: servers that say
// whom they saw, clients with chosen sources, numbered streams that notice
// every loss, sniffers, and packets that no well-behaved program would send.
//
// Whatever opens sockets does so in Listen, Fetch, Dial or Open functions on the calling
// goroutine, so that lab.NS.Do puts it into a namespace; what runs afterwards
// may run anywhere. Everything is bounded in time, count and memory.
package traffic

package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime is how long tests wait for an answer; a refusal comes much sooner.
const answerTime = 3 * time.Second

// serve answers on TCP and UDP with what it gets, on all addresses and these ports.
func (s *space) serve(t testing.TB, ports ...int) {
	t.Helper()
	for _, port := range ports {
		s.do(func() {
			listen(t, fmt.Sprintf(":%d", port))
			for _, network := range []string{"udp4", "udp6"} {
				s.serveUDP(t, network, port)
			}
		})
	}
}

// listen answers on TCP with what it gets, in the namespace of the thread, and returns its address.
func listen(t testing.TB, address string) string {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return ""
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func (s *space) serveUDP(t testing.TB, network string, port int) {
	u, err := net.ListenUDP(network, &net.UDPAddr{Port: port})
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { u.Close() })
	// An answer must come from the address that was asked.
	raw, err := u.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	raw.Control(func(fd uintptr) {
		if network == "udp4" {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	if err != nil {
		t.Error(err)
		return
	}
	go func() {
		data, control := make([]byte, 100), make([]byte, 100)
		for {
			n, cn, _, from, err := u.ReadMsgUDP(data, control)
			if err != nil {
				return
			}
			u.WriteMsgUDP(data[:n], control[:cn], from)
		}
	}()
}

// dial opens a TCP connection from a container.
func (s *space) dial(address string) (net.Conn, error) {
	var c net.Conn
	var err error
	s.do(func() { c, err = net.DialTimeout("tcp", address, answerTime) })
	return c, err
}

// questions counts; no question is taken for a part of a connection that an earlier one opened.
var questions atomic.Uint32

// firstPort is the first of the source ports of questions by UDP.
const firstPort = 10_000

// ask sends a message and waits for it to come back, by tcp, udp, icmp or icmpv6; for the latter two the
// address has no port.
func (s *space) ask(network, address string) error {
	var c net.Conn
	var err error
	message := []byte("hello")
	number := questions.Add(1)
	s.do(func() {
		switch network {
		case "icmp":
			message = echo(8, number)
			c, err = net.Dial("ip4:icmp", address)
		case "icmpv6":
			message = echo(128, number)
			c, err = net.Dial("ip6:ipv6-icmp", address)
		case "udp":
			dialer := net.Dialer{LocalAddr: &net.UDPAddr{Port: firstPort + int(number%50_000)}}
			c, err = dialer.Dial(network, address)
		default:
			c, err = net.DialTimeout(network, address, answerTime)
		}
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := c.Write(message); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 100))
	return err
}

// echo returns an echo request; the kernel puts the checksum in for IPv6.
func echo(kind byte, number uint32) []byte {
	id := uint16(number % 50_000)
	m := []byte{kind, 0, 0, 0, byte(id >> 8), byte(id), 0, 0}
	sum := ^(uint16(kind)<<8 + id) // no carry: the sum stays below 1<<16
	m[2], m[3] = byte(sum>>8), byte(sum)
	return m
}

func refused(t *testing.T, h *space, network, address string) {
	t.Helper()
	began := time.Now()
	err := h.ask(network, address)
	if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s %s: %v, want a rejection", network, address, err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%s %s was rejected after %v", network, address, took)
	}
}

func silent(t *testing.T, h *space, network, address string) {
	t.Helper()
	if err := h.ask(network, address); err == nil {
		t.Errorf("%s %s was answered", network, address)
	}
}

func answered(t *testing.T, h *space, network, address string) {
	t.Helper()
	if err := h.ask(network, address); err != nil {
		t.Errorf("%s %s: %v", network, address, err)
	}
}

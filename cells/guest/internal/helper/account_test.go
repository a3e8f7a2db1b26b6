package helper

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:\nnohome:x:7:8::relative:\ntwin:x:1000:5::/twin:\n"
	testGroup  = "root:x:0:\nextra:x:2000:app,other\nstaff:x:50:other\n"
)

func TestFind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		want account
	}{
		{"root", account{groups: []int{}, name: "root", home: "/root"}},
		{"app", account{uid: 1000, gid: 1000, groups: []int{2000}, name: "app", home: "/home/app"}},
		{"1000", account{uid: 1000, gid: 1000, groups: []int{2000}, name: "app", home: "/home/app"}},
		{"app:staff", account{uid: 1000, gid: 50, groups: []int{}, name: "app", home: "/home/app"}},
		{"4242", account{uid: 4242, groups: []int{}, name: "4242", home: "/"}},
		{"4242:77", account{uid: 4242, gid: 77, groups: []int{}, name: "4242:77", home: "/"}},
		{"nohome", account{uid: 7, gid: 8, groups: []int{}, name: "nohome", home: "/"}},
	} {
		got, err := find(c.name, []byte(testPasswd), []byte(testGroup))
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(account{})); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, err, diff)
		}
	}
	if a, err := find("root", nil, nil); err != nil || a.uid != 0 || a.home != "/" {
		t.Errorf("root without files: %+v, %v", a, err)
	}
	for _, name := range []string{"stranger", "app:strangers", "-1", "99999999999"} {
		if a, err := find(name, []byte(testPasswd), []byte(testGroup)); err == nil {
			t.Errorf("%s is %+v", name, a)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	got := environment([]string{"A=1", "B=1", "A=2", "HOME=/h", "odd", "A="}, account{uid: 5, name: "u", home: "/home/u"})
	want := []string{"A=", "B=1", "HOME=/h", "odd", "PATH=" + userPath, "USER=u"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

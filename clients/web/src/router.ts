import { createRouter, createWebHistory } from 'vue-router';
import { useAccount } from './stores/account';

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    {
      path: '/sign-in',
      name: 'sign-in',
      component: () => import('./pages/SignIn.vue'),
      meta: { open: true },
    },
    {
      path: '/sign-up',
      name: 'sign-up',
      component: () => import('./pages/SignIn.vue'),
      meta: { open: true },
    },
    {
      path: '/',
      component: () => import('./pages/Shell.vue'),
      children: [
        { path: '', name: 'home', component: () => import('./pages/Home.vue') },
        { path: 'c/:channel', name: 'channel', component: () => import('./pages/Room.vue'), props: true },
        { path: 'account', name: 'account', component: () => import('./pages/Account.vue') },
        { path: 'console', name: 'console', component: () => import('./pages/Console.vue') },
      ],
    },
    { path: '/:rest(.*)*', redirect: '/' },
  ],
});

router.beforeEach(async (to) => {
  const account = useAccount();
  await account.restored;
  if (!to.meta['open'] && !account.isSignedIn) {
    return { name: 'sign-in', query: to.fullPath === '/' ? {} : { next: to.fullPath } };
  }
  if (to.meta['open'] && account.isSignedIn) return '/';
  if (to.name === 'console' && !account.isAdmin) return '/';
  return true;
});
